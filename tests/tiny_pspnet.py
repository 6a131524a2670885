"""A user's own config file: a PSPNet that trains within milliseconds."""

from jaxseg import recipes


def get_config(arg: str = ""):
  """Returns a network of a few features for images of 24x32 pixels."""
  c = recipes.network_config("pspnet", arg)
  c.name = "tiny_pspnet"
  recipes.replace_backbone(
    c,
    "resnet18",
    output_stride=8,
    stem="deep",
    width=4,
    stage_sizes=(1, 1, 1, 1),
  )
  c.model.update(bins=(1, 2), head_features=8, aux_features=8)
  with c.unlocked():
    c.loss.heads.aux_logits = 0.4
  c.data.canvas = (24, 32)
  c.augment.update(crop=(16, 24), scale=(0.5, 2.0))
  c.train.batch_size = 8
  c.eval.batch_size = 8
  return c
