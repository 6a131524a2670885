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

VARIANTS = recipes.FCN_VARIANTS


def get_config(arg: str = "") -> ConfigDict:
  """FCN-32s on the data preset, and with the variant, that `arg` names."""
  return recipes.fcn("fcn_32s", arg, learning_rate=1e-4, stage=False)
