"""U-Net on a backbone (after Ronneberger et al. 2015).

  python train.py --config=configs/unet_backbone.py
  python train.py --config=configs/unet_backbone.py:camvid,efficientnet_b0
    --config.init.backbone=efficientnet_b0.npz

Words: a data preset; a backbone; `small`.

No paper describes this network. The recipe is a common one for a pretrained
backbone: AdamW, the backbone at a tenth of the learning rate, poly 0.9, scales
0.5 to 2.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small",)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("unet_backbone", arg, WORDS)
  recipes.adamw(c, learning_rate=1e-3)
  c.optimizer.multipliers = (("^backbone/", 0.1),)
  c.train.update(steps=20_000, batch_size=16, eval_every=1000)
  if "small" in c.words:
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Sets a narrow, short ResNet and decoder."""
  recipes.small(c, learning_rate=4e-3, steps=1000, eval_batch_size=50)
  stages = (1, 1, 1, 1)
  recipes.replace_backbone(c, "resnet18", width=16, stage_sizes=stages)
  c.model.decoder_features = (64, 32, 32, 16, 16)
