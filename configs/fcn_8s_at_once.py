"""FCN-8s at once (Shelhamer et al. 2017, arXiv:1605.06211).

  python train.py --config=configs/fcn_8s_at_once.py
  python train.py --config=configs/fcn_8s_at_once.py:camvid

Words: a data preset; a backbone; `small`; `heavy`.

One stage replaces three (PAMI text; released as voc-fcn8s-atonce): the maps
that the skips score are scaled by 0.01 and 0.0001, so that all of them can
learn at the learning rate of FCN-32s, for three times as many steps. `heavy`
is the recipe of the released solver, see `fcn_32s`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "heavy")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("fcn_8s_at_once", arg, WORDS, exclusive=(WORDS,))
  c.model.learned_upsampling = "intermediate"
  # 175 epochs of CamVid\'s 367 images.
  recipes.whole_images(c, learning_rate=1e-4, batch_size=20, steps=3200)
  c.train.steps = 9600
  if "heavy" in c.words:
    c.model.learned_upsampling = "none"
    recipes.heavy_momentum(c, learning_rate=1e-10, momentum=0.99, steps=300_000)
  if "small" in c.words:
    recipes.small_fcn(c)
  return c
