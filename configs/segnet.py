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
from jaxseg.data.datasets import DATASETS


def get_config(arg: str = "") -> ConfigDict:
  """SegNet on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = with_data(preset)
  with c.unlocked():
    c.name = "segnet"
    c.model = ConfigDict(
      dict(name="segnet", backbone=dict(name="vgg16_bn", width=64))
    )
  c.augment.update(scale=(1.0, 1.0), flip=False)
  c.loss.class_weights = DATASETS[preset].class_weights
  c.loss.update(balance="median_frequency", normalise_by="count")
  recipes.caffe_sgd(c)
  c.optimizer.learning_rate = 1e-3
  c.schedule.name = "constant"
  c.train.update(steps=40_000, batch_size=4, eval_every=1000)
  c.train.norm_batches = 92  # CamVid's 367 training images
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow, shallower VGG: minutes on two CPU cores."""
  recipes.from_scratch(c, learning_rate=4e-3, steps=1000)
  c.train.norm_batches = 0
  with c.unlocked():
    c.model.backbone.update(width=8, stage_sizes=(2, 2, 2, 1, 1))
  c.augment.flip = True
  c.loss.balance = ""
  c.eval.batch_size = 50
