"""SegNet-Basic (2017): python train.py --config=configs/segnet_basic.py

Data presets: `configs/segnet_basic.py:shapes` (the default), `:camvid`,
`:folder`. `:camvid,laptop` and `:folder,laptop` fit two CPU cores.

The published recipe (SegNet-Tutorial's solver and prototxt; batch 12 is the
paper's, the solver's is 4): SGD 0.9, a fixed rate of 0.1, decay 5e-4, 10,000
steps; images of 360x480 as they are, 0..255 without a mean (local response
normalisation takes its place) and without augmentation; classes weighted by
median frequency, the loss divided by the number of pixels; the norms'
statistics are those of all training images, taken anew before each evaluation:
at this rate running averages describe a network long gone.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data
from jaxseg.data.datasets import DATASETS

VARIANTS = ("laptop",)


def get_config(arg: str = "") -> ConfigDict:
  """SegNet-Basic on the data preset, and with the variants, `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = with_data(preset)
  with c.unlocked():
    c.name = "segnet_basic"
    c.model = ConfigDict(
      dict(name="segnet_basic", features=64, kernel_size=7, stages=4)
    )
  recipes.caffe_input(c, mean=(0.0, 0.0, 0.0))
  c.augment.update(scale=(1.0, 1.0), flip=False)
  c.loss.class_weights = DATASETS[preset].class_weights
  c.loss.update(balance="median_frequency", normalise_by="count")
  recipes.caffe_sgd(c)
  c.optimizer.learning_rate = 0.1
  c.schedule.name = "constant"
  c.train.update(steps=10_000, batch_size=12, eval_every=500)
  c.train.norm_batches = 31  # CamVid's 367 training images
  if preset == "shapes":
    small(c)
  elif "laptop" in variants:
    laptop(c)
  return c


def small(c: ConfigDict) -> None:
  """A quarter of the features: minutes on two CPU cores."""
  recipes.from_scratch(c, learning_rate=1e-2, steps=800)
  c.train.norm_batches = 0
  c.model.features = 16
  c.augment.flip = True
  c.loss.balance = ""
  c.eval.batch_size = 50


def laptop(c: ConfigDict) -> None:
  """The whole network on images of half the size, batch 4 as the tutorial's.

  Half an hour on two CPU cores. Evaluation shrinks the images likewise and
  scores at their full size.
  """
  c.augment.update(crop=(180, 240), scale=(0.5, 0.5))
  c.eval.update(scales=(0.5,), batch_size=8)
  c.train.update(steps=600, batch_size=4, eval_every=150, checkpoint_every=150)
  c.train.norm_batches = 40
