"""FC-DenseNet103 (2017): python train.py --config=configs/fc_densenet103.py

Data presets: `configs/fc_densenet103.py:shapes` (the default; narrow, minutes
on two CPU cores), `:camvid`, `:folder`, `:isbi_em`. The recipe has two stages:
crops of 224 (`:camvid`), then whole images at a tenth of the rate, from the
best of the first: `:camvid --workdir=runs/fc_densenet103-whole
--config.init.model=runs/fc_densenet103-camvid
--config.augment.crop='(360, 480)' --config.optimizer.learning_rate=1e-4`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
  """FC-DenseNet103 on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = recipes.fc_densenet(
    "fc_densenet103",
    preset,
    down_layers=(4, 5, 7, 10, 12),
    bottleneck_layers=15,
    growth=16,
  )
  if preset == "shapes":
    recipes.small_fc_densenet(c, down_layers=(2, 2, 3), bottleneck_layers=4)
  return c
