"""SegNet (2017): python train.py --config=configs/segnet.py

Data presets: `configs/segnet.py:shapes` (the default), `:camvid`, `:folder`.

The published recipe (SegNet-Tutorial's solver and prototxt): SGD 0.9, a fixed
rate of 0.001, decay 5e-4, batch 4, 40,000 steps; images of 360x480 without
augmentation; classes weighted by median frequency, the loss divided by the
number of pixels; the norms' statistics are those of all training images, taken
anew before each evaluation. The encoder starts from VGG-16: pass a converted
file or torchvision's, --config.init.backbone=vgg16_bn.pth. Images are
normalised as that file expects; from random weights the published 0..255 would
train alike, since the norm behind the first convolution undoes shift and scale.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data


def get_config(arg: str = "") -> ConfigDict:
  """SegNet on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = with_data(preset)
  with c.unlocked():
    c.name = "segnet"
    c.model = ConfigDict(
      dict(name="segnet", backbone=dict(name="vgg16_bn", width=64))
    )
  recipes.segnet(c, learning_rate=1e-3, steps=40_000, batch_size=4)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow, shallower VGG: minutes on two CPU cores."""
  recipes.small_segnet(c, learning_rate=4e-3, steps=1000)
  with c.unlocked():
    c.model.backbone.update(width=8, stage_sizes=(2, 2, 2, 1, 1))
