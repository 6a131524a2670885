"""Bayesian SegNet (2015): python train.py --config=configs/bayesian_segnet.py

Data presets: `configs/bayesian_segnet.py:shapes` (the default), `:camvid`,
`:folder`.

The published recipe (SegNet-Tutorial's solver and prototxt): that of SegNet
(SGD 0.9, a fixed rate of 0.001, decay 5e-4, batch 4, no augmentation, classes
weighted by median frequency) for 60,000 steps, with dropout of a half around
the three deepest stages. Evaluation averages 40 networks drawn by dropout
(`--config.eval.dropout_samples=0` leaves it out);
`jaxseg.layers.monte_carlo` gives mean and variance.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data


def get_config(arg: str = "") -> ConfigDict:
  """Bayesian SegNet on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = with_data(preset)
  with c.unlocked():
    c.name = "bayesian_segnet"
    c.model = ConfigDict(
      dict(
        name="bayesian_segnet",
        backbone=dict(name="vgg16_bn", width=64, dropout_rate=0.5),
        dropout_rate=0.5,
      )
    )
  recipes.segnet(c, learning_rate=1e-3, steps=60_000, batch_size=4)
  c.eval.update(dropout_samples=40, batch_size=4)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow, shallower VGG, less dropout: minutes on two CPU cores."""
  recipes.small_segnet(c, learning_rate=8e-3, steps=1500)
  with c.unlocked():
    c.model.backbone.update(
      width=12, stage_sizes=(2, 2, 1, 1, 1), dropout_rate=0.1
    )
  c.model.dropout_rate = 0.1
  c.eval.dropout_samples = 8
