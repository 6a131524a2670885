"""A user's own configuration file, of a PSPNet that trains in milliseconds."""

from jaxseg.config import parse_arg, with_data


def get_config(arg: str = ""):
  """A few features on images of 24 x 32 pixels."""
  preset, _ = parse_arg(arg)
  c = with_data(preset)
  with c.unlocked():
    c.name = "tiny_pspnet"
    c.model = {
      "name": "pspnet",
      "backbone": {
        "name": "resnet18",
        "width": 4,
        "stage_sizes": (1, 1, 1, 1),
      },
      "bins": (1, 2),
      "head_features": 8,
      "aux_features": 8,
      "dropout_rate": 0.1,
    }
    c.loss.heads = {"logits": 1.0, "aux_logits": 0.4}
  c.data.canvas = (24, 32)
  c.augment.update(crop=(16, 24), scale=(0.5, 2.0))
  c.train.update(batch_size=8)
  c.eval.update(batch_size=8)
  return c
