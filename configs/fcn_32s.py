"""FCN-32s (Long et al. 2015): python train.py --config=configs/fcn_32s.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. The first of three stages: FCN-16s starts from it.

The recipe of the CVPR text (Sec. 4.3): SGD at a fixed rate of 1e-4, momentum
0.9, decay 5e-4, biases twice as fast, batch 20, no augmentation. `,heavy` is
the released solver's: one image a step, the loss summed over its pixels, rate
1e-10, momentum 0.99. To start from a VGG-16, its dense layers too, see
`jaxseg/models/convolutionalise.py`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("heavy",)


def get_config(arg: str = "") -> ConfigDict:
  """FCN-32s on the data preset, and with the variant, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  heavy = "heavy" in variants and preset != "shapes"
  c = with_data(preset)
  with c.unlocked():
    c.name = "fcn_32s"
    c.model = ConfigDict(
      dict(
        name="fcn_32s",
        backbone=dict(name="vgg16", width=64, padding=100),
        learned_upsampling="none",
        head_features=4096,
        head_kernel_size=7,
        dropout_rate=0.5,
      )
    )
  recipes.fcn(
    c,
    learning_rate=1e-4,
    heavy_learning_rate=1e-10 if heavy else 0.0,
  )
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Narrow, and for images of 64x64: a smaller fc6 needs less padding."""
  recipes.from_scratch(c, learning_rate=3e-3, steps=1000)
  c.model.backbone.update(name="vgg16_bn", width=8, padding=33)
  c.model.update(head_features=64, head_kernel_size=3, dropout_rate=0.1)
  # Stamps of 64x64 that learn draw what no bilinear one can.
  c.model.learned_upsampling = "all"
