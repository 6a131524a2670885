"""FCN-AlexNet (Long et al. 2015, arXiv:1411.4038).

  python train.py --config=configs/fcn_alexnet.py
  python train.py --config=configs/fcn_alexnet.py:camvid

Words: a data preset; a backbone; `small`; `heavy`.

The recipe is that of FCN-32s at ten times its learning rate (CVPR text,
Sec. 4.3). `heavy` is the released solver's: a learning rate of 1e-4, the loss
averaged over pixels, updates of twenty images that are computed one by one. The
biases of conv1 to conv5 learn and decay like weights (its prototxt).
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "heavy")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("fcn_alexnet", arg, WORDS, exclusive=(WORDS,))
  # 175 epochs of CamVid\'s 367 images.
  recipes.whole_images(c, learning_rate=1e-3, batch_size=20, steps=3200)
  c.optimizer.no_decay = ("^(head|score_fr)/.*bias$",)
  c.optimizer.multipliers = (("^(head|score_fr)/.*bias$", 2.0),)
  if "heavy" in c.words:
    recipes.caffe_input(c)
    c.optimizer.update(learning_rate=1e-4, accumulate=20)
    c.train.update(steps=100_000, batch_size=20, eval_every=4000)
  if "small" in c.words:
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Sets a narrow AlexNet: a smaller fc6 needs less padding."""
  recipes.small(c, learning_rate=3e-3, steps=1000)
  # With a 3x3 fc6, 52 leaves the margin that 100 leaves with the paper's 6x6.
  c.model.backbone.padding = 51 if c.data.name == "shapes" else 52
  c.model.backbone.update(widths=(16, 32, 32, 32, 32), caffe_init=False)
  c.model.update(head_features=64, head_kernel_size=3, dropout_rate=0.1)
  # Learned 63x63 kernels draw outlines that bilinear ones cannot.
  c.model.learned_upsampling = "all"
