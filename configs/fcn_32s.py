"""FCN-32s (Long et al. 2015, arXiv:1411.4038).

  python train.py --config=configs/fcn_32s.py
  python train.py --config=configs/fcn_32s.py:camvid

Words: a data preset; a backbone; `small`; `heavy`. FCN-32s is the first of
three stages: FCN-16s starts from it.

The recipe of the CVPR text (Sec. 4.3): SGD with a fixed learning rate of 1e-4,
momentum 0.9, decay 5e-4, biases twice as fast, batch 20, no augmentation.
`heavy` is the released solver's: one image a step, the loss summed over its
pixels, a learning rate of 1e-10, momentum 0.99.
`jaxseg/models/convolutionalise.py` starts from a VGG-16 with its dense layers.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "heavy")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("fcn_32s", arg, WORDS, exclusive=(WORDS,))
  # 175 epochs of CamVid\'s 367 images.
  recipes.whole_images(c, learning_rate=1e-4, batch_size=20, steps=3200)
  if "heavy" in c.words:
    recipes.heavy_momentum(c, learning_rate=1e-10, momentum=0.99, steps=100_000)
  if "small" in c.words:
    recipes.small_fcn(c)
  return c
