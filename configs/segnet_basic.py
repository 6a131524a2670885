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
  recipes.segnet(c, learning_rate=0.1, steps=10_000, batch_size=12)
  c.train.eval_every = 500
  if preset == "shapes":
    small(c)
  elif "laptop" in variants:
    laptop(c)
  return c


def small(c: ConfigDict) -> None:
  """A quarter of the features: minutes on two CPU cores."""
  recipes.small_segnet(c, learning_rate=1e-2, steps=800)
  c.model.features = 16


def laptop(c: ConfigDict) -> None:
  """The whole network on images of half the size, batch 4 as the tutorial's.

  Half an hour on two CPU cores. Evaluation shrinks the images likewise and
  scores at their full size.
  """
  c.augment.update(crop=(180, 240), scale=(0.5, 0.5))
  c.eval.update(scales=(0.5,), batch_size=8)
  c.train.update(steps=600, batch_size=4, eval_every=150, checkpoint_every=150)
  c.train.norm_batches = 40
