"""FCN-16s (Long et al. 2015, arXiv:1411.4038).

  python train.py --config=configs/fcn_16s.py
  python train.py --config=configs/fcn_16s.py:camvid
    --config.init.model=runs/fcn_32s-camvid

Words: a data preset; a backbone; `small`; `heavy`. FCN-16s is the second of
three stages: it starts from FCN-32s. The layers that it adds start from zero
scores and bilinear kernels.

The recipe is that of FCN-32s at a hundredth of its learning rate (Sec. 4.2),
with `heavy` as well.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "heavy")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("fcn_16s", arg, WORDS, exclusive=(WORDS,))
  c.model.learned_upsampling = "intermediate"
  # 175 epochs of CamVid\'s 367 images.
  recipes.whole_images(c, learning_rate=1e-6, batch_size=20, steps=3200)
  if "heavy" in c.words:
    c.model.learned_upsampling = "none"
    recipes.heavy_momentum(c, learning_rate=1e-12, momentum=0.99, steps=100_000)
  if "small" in c.words:
    recipes.small_fcn(c)
  c.init.skip = ("score_pool4|upscore",)  # Layers that this stage adds.
  return c
