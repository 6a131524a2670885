"""FCN-16s (Long et al. 2015): python train.py --config=configs/fcn_16s.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. The second of three stages: it starts from FCN-32s with
`--config.init.model=runs/fcn_32s-camvid`, and what it adds starts from zero
scores and bilinear kernels.

FCN-32s's recipe at a hundredth of its rate (Sec. 4.2); `,heavy` likewise.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("heavy",)


def get_config(arg: str = "") -> ConfigDict:
  """FCN-16s on the data preset, and with the variant, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  heavy = "heavy" in variants and preset != "shapes"
  c = with_data(preset)
  with c.unlocked():
    c.name = "fcn_16s"
    c.model = ConfigDict(
      dict(
        name="fcn_16s",
        backbone=dict(name="vgg16", width=64, padding=100),
        learned_upsampling="none" if heavy else "intermediate",
        head_features=4096,
        head_kernel_size=7,
        dropout_rate=0.5,
      )
    )
  recipes.fcn(
    c,
    learning_rate=1e-6,
    heavy_learning_rate=1e-12 if heavy else 0.0,
  )
  c.init.skip = ("score_pool4|upscore",)  # What this stage adds.
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Narrow, and for images of 64x64: a smaller fc6 needs less padding."""
  recipes.from_scratch(c, learning_rate=3e-3, steps=1000)
  c.model.backbone.update(name="vgg16_bn", width=8, padding=33)
  c.model.update(head_features=64, head_kernel_size=3, dropout_rate=0.1)
  c.model.learned_upsampling = "all"
