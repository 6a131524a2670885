"""FCN-8s (Long et al. 2015): python train.py --config=configs/fcn_8s.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. The last of three stages: it starts from FCN-16s with
`--config.init.model=runs/fcn_16s-camvid`. `fcn_8s_at_once` needs no stages.

FCN-16s's recipe at a hundredth of its rate; `,heavy` likewise.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

VARIANTS = recipes.FCN_VARIANTS


def get_config(arg: str = "") -> ConfigDict:
  """FCN-8s on the data preset, and with the variant, that `arg` names."""
  c = recipes.fcn("fcn_8s", arg, learning_rate=1e-8)
  c.init.skip = ("score_pool3|upscore_pool4|upscore/",)  # What this stage adds.
  return c
