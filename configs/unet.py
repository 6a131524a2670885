"""U-Net (2015): python train.py --config=configs/unet.py

Data presets: `configs/unet.py:shapes` (the default; narrow, minutes on two CPU
cores), `:camvid`, `:folder`, and the paper's own, the membranes of ISBI 2012:
`:isbi_em --config.data.path=../shared/data/isbi_em`. Variants: `released` (the
authors' Caffe network), `same` (padded, with batch normalisation, as
milesial/Pytorch-UNet; trained by AdamW, not by that code's RMSprop and Dice),
`laptop` (two CPU cores): `:isbi_em,laptop`.

The paper's recipe (Sec. 3): SGD of momentum 0.99 with one large tile a batch,
classes balanced and borders between cells weighted by Eq. 2, elastic
deformation of 10 pixels, rotation, shifts and grey values; the rate is not
printed and chosen here. The crop of 388 is the output of Fig. 1; around it
training sees the crop's mirror image. Evaluation takes the whole image, which
overlapping tiles equal (`unet.overlap_tile`, for images beyond the memory).
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data
from jaxseg.models import unet

VARIANTS = ("released", "same", "laptop")


def get_config(arg: str = "") -> ConfigDict:
  """U-Net on the data preset, and with the variants, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = with_data(preset)
  with c.unlocked():
    c.name = "unet"
    c.model = ConfigDict(
      dict(
        name="unet",
        features=(64, 128, 256, 512, 1024),
        padding="valid",
        upsample="transposed",
        up_features=(),
        act_upsampled=False,
        skip_first=True,
        dropout_levels=(4, 5),
        dropout_rate=0.5,
      )
    )
  # No larger than the images.
  c.augment.crop = tuple(min(side, 388) for side in c.data.canvas)
  c.optimizer.update(learning_rate=1e-3, momentum=0.99, weight_decay=0.0)
  c.schedule.name = "constant"
  c.train.update(steps=30_000, batch_size=1, eval_every=1000)
  c.eval.batch_size = 6
  if preset == "isbi_em":
    c.augment.update(elastic_std=10.0, rotation=180.0)
    c.augment.update(brightness=0.2, contrast=0.2)
    # For two classes the balance of Eq. 2: half by the share of the class.
    c.loss.update(balance="median_frequency", border_weight=10.0)
  if "released" in variants:
    c.model.update(unet.RELEASED)
  if "same" in variants:
    same(c)
  if preset == "shapes":
    small(c)
  elif "laptop" in variants:
    laptop(c)
  return c


def same(c: ConfigDict) -> None:
  """Padded and normalised: any size, no mirroring, an ordinary optimizer."""
  c.model.update(unet.SAME)
  c.norm.name = "batch"
  recipes.adamw(c, learning_rate=1e-3)
  c.schedule.name = "poly"
  c.train.batch_size = 8


def small(c: ConfigDict) -> None:
  """Three levels of few features; the mirror image doubles the canvas."""
  recipes.from_scratch(c, learning_rate=4e-3, steps=800)
  c.augment.crop = c.data.canvas
  c.model.update(features=(8, 16, 32), dropout_levels=(3,))
  c.eval.batch_size = 50


def laptop(c: ConfigDict) -> None:
  """A quarter of the features, padded: ten minutes on two cores."""
  same(c)
  recipes.from_scratch(c, learning_rate=2e-3, steps=450)
  c.model.features = (16, 32, 64, 128, 256)
  c.augment.crop = (256, 256)
  c.train.update(batch_size=4, eval_every=150, checkpoint_every=150)
