"""FC-DenseNet56 (2017): python train.py --config=configs/fc_densenet56.py

Data presets: `configs/fc_densenet56.py:shapes` (the default; narrow, minutes
on two CPU cores), `:camvid`, `:folder`, `:isbi_em`. The recipe has two stages:
crops of 224 (`:camvid`), then whole images at a tenth of the rate, from the
best of the first: `:camvid --workdir=runs/fc_densenet56-whole
--config.init.model=runs/fc_densenet56-camvid
--config.augment.crop='(360, 480)' --config.optimizer.learning_rate=1e-4`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg

VARIANTS = ("laptop",)


def get_config(arg: str = "") -> ConfigDict:
  """FC-DenseNet56 on the data preset, and with the variants, `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = recipes.fc_densenet(
    "fc_densenet56",
    preset,
    down_layers=(4, 4, 4, 4, 4),
    bottleneck_layers=4,
    growth=12,
  )
  if preset == "shapes":
    recipes.small_fc_densenet(c, down_layers=(2, 2, 2), bottleneck_layers=2)
  elif "laptop" in variants:
    laptop(c)
  return c


def laptop(c: ConfigDict) -> None:
  """The whole network on images of half the size: half an hour on two cores.

  Evaluation shrinks the images likewise and scores at their full size.
  """
  c.optimizer.ema_decay = 0.98
  c.schedule.update(name="cosine", warmup_steps=20)
  c.augment.update(crop=(176, 240), scale=(0.4, 0.7))
  c.eval.scales = (0.5,)
  c.train.update(steps=400, batch_size=3, eval_every=100, checkpoint_every=100)
