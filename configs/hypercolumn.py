"""Hypercolumns (Hariharan et al. 2015): --config=configs/hypercolumn.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. The form that classifies every pixel of an image; the
paper's, in boxes, is `jaxseg.models.hypercolumn.BoxHypercolumn`.

AlexNet's pool2, conv4 and fc7, as in the paper's T-Net. The paper trains on
boxes of a detector; for whole images the recipe here is that of FCN-AlexNet,
its contemporary. Start from ImageNet with `--config.init.model`, see
`jaxseg/models/convolutionalise.py`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data


def get_config(arg: str = "") -> ConfigDict:
  """Hypercolumns on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = with_data(preset)
  with c.unlocked():
    c.name = "hypercolumn"
    c.model = ConfigDict(
      dict(
        name="hypercolumn",
        backbone=dict(name="caffenet", widths=(96, 256, 384, 384, 256)),
        levels=("pool2", "conv4", "fc7"),
        head_features=4096,
        head_kernel_size=6,
        dropout_rate=0.5,
      )
    )
  recipes.whole_images(c, learning_rate=1e-3)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow VGG-11 and its early layers as well."""
  recipes.from_scratch(c, learning_rate=3e-3, steps=1000)
  with c.unlocked():
    c.model.backbone = ConfigDict(dict(name="vgg11_bn", width=16))
  c.model.update(
    levels=("conv1", "c2", "c4", "fc7"), head_features=64, head_kernel_size=3
  )
