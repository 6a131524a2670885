"""FCN-8s (Long et al. 2015, arXiv:1411.4038).

  python train.py --config=configs/fcn_8s.py
  python train.py --config=configs/fcn_8s.py:camvid
    --config.init.model=runs/fcn_16s-camvid

Words: a data preset; a backbone; `small`; `heavy`. FCN-8s is the last of three
stages: it starts from FCN-16s. `fcn_8s_at_once` needs no stages.

The recipe is that of FCN-16s at a hundredth of its learning rate, with `heavy`
as well.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "heavy")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("fcn_8s", arg, WORDS, exclusive=(WORDS,))
  c.model.learned_upsampling = "intermediate"
  # 175 epochs of CamVid\'s 367 images.
  recipes.whole_images(c, learning_rate=1e-8, batch_size=20, steps=3200)
  if "heavy" in c.words:
    c.model.learned_upsampling = "none"
    recipes.heavy_momentum(c, learning_rate=1e-14, momentum=0.99, steps=100_000)
  if "small" in c.words:
    recipes.small_fcn(c)
  # Layers that this stage adds.
  c.init.skip = ("score_pool3|upscore_pool4|upscore/",)
  return c
