"""FC-DenseNet67 (2017): python train.py --config=configs/fc_densenet67.py

Data presets: `configs/fc_densenet67.py:shapes` (the default; narrow, minutes
on two CPU cores), `:camvid`, `:folder`, `:isbi_em`. The recipe has two stages:
crops of 224 (`:camvid`), then whole images at a tenth of the rate, from the
best of the first: `:camvid --config.init.model=runs/fc_densenet67_camvid
--config.augment.crop='(360, 480)' --config.optimizer.learning_rate=1e-4`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data


def get_config(arg: str = "") -> ConfigDict:
  """FC-DenseNet67 on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = with_data(preset)
  with c.unlocked():
    c.name = "fc_densenet67"
    c.model = ConfigDict(
      dict(
        name="fc_densenet67",
        down_layers=(5, 5, 5, 5, 5),
        bottleneck_layers=5,
        growth=16,
        stem_features=48,
        dropout_rate=0.2,
        batch_statistics="batch",
      )
    )
  recipes.fc_densenet(c)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Three poolings and narrow blocks."""
  recipes.from_scratch(c, learning_rate=4e-3, steps=800)
  c.augment.crop = c.data.canvas
  c.model.update(down_layers=(2, 2, 2), bottleneck_layers=3, growth=8)
  c.model.stem_features = 16
  c.eval.batch_size = 50
