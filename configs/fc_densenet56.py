"""FC-DenseNet56 (2017): python train.py --config=configs/fc_densenet56.py

Data presets: `configs/fc_densenet56.py:shapes` (the default; narrow, minutes
on two CPU cores), `:camvid`, `:folder`, `:isbi_em`. The recipe has two stages:
crops of 224 (`:camvid`), then whole images at a tenth of the rate, from the
best of the first: `:camvid --config.init.model=runs/fc_densenet56_camvid
--config.augment.crop='(360, 480)' --config.optimizer.learning_rate=1e-4`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("laptop",)


def get_config(arg: str = "") -> ConfigDict:
  """FC-DenseNet56 on the data preset, and with the variants, `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = with_data(preset)
  with c.unlocked():
    c.name = "fc_densenet56"
    c.model = ConfigDict(
      dict(
        name="fc_densenet56",
        down_layers=(4, 4, 4, 4, 4),
        bottleneck_layers=4,
        growth=12,
        stem_features=48,
        dropout_rate=0.2,
        batch_statistics="batch",
      )
    )
  recipes.fc_densenet(c)
  if preset == "shapes":
    small(c)
  elif "laptop" in variants:
    laptop(c)
  return c


def small(c: ConfigDict) -> None:
  """Three poolings and narrow blocks."""
  recipes.from_scratch(c, learning_rate=4e-3, steps=800)
  c.augment.crop = c.data.canvas
  c.model.update(down_layers=(2, 2, 2), bottleneck_layers=2, growth=8)
  c.model.stem_features = 16
  c.eval.batch_size = 50


def laptop(c: ConfigDict) -> None:
  """The whole network on images of half the size: half an hour on two cores.

  Evaluation shrinks the images likewise and scores at their full size.
  """
  c.optimizer.ema_decay = 0.98
  c.schedule.update(name="cosine", warmup_steps=20)
  c.augment.update(crop=(176, 240), scale=(0.4, 0.7))
  c.eval.scales = (0.5,)
  c.train.update(steps=700, batch_size=3, eval_every=175, checkpoint_every=175)
