"""FCN-8s at once: python train.py --config=configs/fcn_8s_at_once.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. One stage instead of three (PAMI text; released as
voc-fcn8s-atonce): the maps that the skips score are scaled by 0.01 and
0.0001, so that all of them can learn at FCN-32s's rate, for three times as
many steps. `,heavy` is the released solver's recipe, see `fcn_32s`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

VARIANTS = recipes.FCN_VARIANTS


def get_config(arg: str = "") -> ConfigDict:
  """FCN-8s at once on the preset, and with the variant, that `arg` names."""
  c = recipes.fcn("fcn_8s_at_once", arg, learning_rate=1e-4)
  c.train.steps *= 1 if c.data.name == "shapes" else 3
  return c
