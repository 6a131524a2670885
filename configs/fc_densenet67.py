"""FC-DenseNet67 (2017): python train.py --config=configs/fc_densenet67.py

Data presets: `configs/fc_densenet67.py:shapes` (the default; narrow, minutes
on two CPU cores), `:camvid`, `:folder`, `:isbi_em`. The recipe has two stages:
crops of 224 (`:camvid`), then whole images at a tenth of the rate, from the
best of the first: `:camvid --workdir=runs/fc_densenet67-whole
--config.init.model=runs/fc_densenet67-camvid
--config.augment.crop='(360, 480)' --config.optimizer.learning_rate=1e-4`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
  """FC-DenseNet67 on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = recipes.fc_densenet(
    "fc_densenet67",
    preset,
    down_layers=(5, 5, 5, 5, 5),
    bottleneck_layers=5,
    growth=16,
  )
  if preset == "shapes":
    recipes.small_fc_densenet(c, down_layers=(2, 2, 2), bottleneck_layers=3)
  return c
