"""U-Net (Ronneberger, Fischer & Brox 2015, arXiv:1505.04597).

  python train.py --config=configs/unet.py
  python train.py --config=configs/unet.py:isbi_em --config.data.path=DIR
  python train.py --config=configs/unet.py:isbi_em,laptop --config.data.path=DIR

Words: a data preset (the paper's is `isbi_em`, the membranes of ISBI 2012);
`small`; `laptop` for two CPU cores; `released` for the authors' Caffe network;
`milesial` for the padded network with batch normalisation of
milesial/Pytorch-UNet (trained by AdamW here, not by its RMSprop and Dice).

The paper's recipe (Sec. 3): SGD with momentum 0.99 and one large tile a batch,
classes balanced and borders between cells weighted by Eq. 2, elastic
deformation of 10 pixels, rotation, shifts and grey values. The paper does not
give a learning rate; it is chosen here. The crop of 388 is the output of
Fig. 1; the mirror image of the crop surrounds it in training. Evaluation takes
the whole image, which overlapping tiles equal (`unet.overlap_tile`, for images
beyond the memory).
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.models import VARIANTS

WORDS = ("small", "laptop", "released", "milesial")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config(
    "unet", arg, WORDS, exclusive=(("laptop", "released", "milesial"),)
  )
  recipes.limit_crop(c, 388)
  c.optimizer.update(learning_rate=1e-3, momentum=0.99, weight_decay=0.0)
  c.schedule.name = "constant"
  c.train.update(steps=30_000, batch_size=1, eval_every=1000)
  c.eval.batch_size = 6
  if c.data.name == "isbi_em":
    c.augment.update(elastic_std=10.0, rotation=180.0)
    c.augment.update(brightness=0.2, contrast=0.2)
    # Half of the inverse class share: for two classes the balance of Eq. 2.
    c.loss.update(balance="median_frequency", border_weight=10.0)
  if "milesial" in c.words:
    normalised(c)
  if "small" in c.words:
    small(c)
  elif "laptop" in c.words:
    laptop(c)
  return c


def normalised(c: ConfigDict) -> None:
  """Sets batch normalisation and an ordinary optimizer."""
  c.norm.name = "batch"
  recipes.adamw(c, learning_rate=1e-3)
  c.schedule.name = "poly"
  c.train.batch_size = 8


def small(c: ConfigDict) -> None:
  """Sets three levels of few features; mirroring doubles the canvas."""
  recipes.small(c, learning_rate=4e-3, steps=800, eval_batch_size=50)
  c.model.update(features=(8, 16, 32), dropout_levels=(3,))


def laptop(c: ConfigDict) -> None:
  """Sets a quarter of the features, padded: ten minutes on two cores."""
  c.model.update(VARIANTS["unet"]["milesial"])
  normalised(c)
  recipes.from_scratch(c, learning_rate=2e-3, steps=450)
  c.model.features = (16, 32, 64, 128, 256)
  recipes.limit_crop(c, 256)
  c.train.update(batch_size=4, eval_every=150, checkpoint_every=150)
