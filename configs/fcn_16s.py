"""FCN-16s (Long et al. 2015): python train.py --config=configs/fcn_16s.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. The second of three stages: it starts from FCN-32s with
`--config.init.model=runs/fcn_32s-camvid`, and what it adds starts from zero
scores and bilinear kernels.

FCN-32s's recipe at a hundredth of its rate (Sec. 4.2); `,heavy` likewise.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

VARIANTS = recipes.FCN_VARIANTS


def get_config(arg: str = "") -> ConfigDict:
  """FCN-16s on the data preset, and with the variant, that `arg` names."""
  c = recipes.fcn("fcn_16s", arg, learning_rate=1e-6)
  c.init.skip = ("score_pool4|upscore",)  # What this stage adds.
  return c
