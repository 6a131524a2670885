"""DeepLab v1 (Chen et al. 2015, arXiv:1412.7062).

  python train.py --config=configs/deeplab_v1.py
  python train.py --config=configs/deeplab_v1.py:camvid,fov4x4

Words: a data preset; a backbone; `small`; `fov4x4`, `fov4x4_rate8` or `fov7x7`
for another field of view than LargeFOV; `msc` for the multi-scale branches.
`--config.eval.crf=deeplab_v1_largefov` adds the dense CRF to the evaluation,
`--config.init.backbone=vgg16.npz` starts from ImageNet.

The recipe of the paper (Sec. 4.1): SGD with momentum 0.9, batch 20, a learning
rate of 1e-3 and ten times that for fc8 (biases twice that), divided by ten
every 2000 of 6000 steps, decay 5e-4, crops of 321 mirrored at random, loss on
every eighth pixel. Images are normalised as torchvision's weights expect;
Caffe's weights need `recipes.caffe_input`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.models import VARIANTS

WORDS = ("small", *VARIANTS["deeplab_v1"], "msc")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("deeplab_v1", arg, WORDS)
  if "msc" in c.words:
    c.model.multi_scale_features = 128
  recipes.caffe_sgd(c)
  c.optimizer.learning_rate = 1e-3
  c.optimizer.multipliers = (
    ("^fc8/kernel$", 10.0),
    ("^fc8/bias$", 20.0),
    ("bias$", 2.0),
  )
  c.schedule.update(name="step", step_fractions=(1 / 3, 2 / 3))
  c.loss.label_stride = 8
  c.augment.update(crop=(321, 321), scale=(1.0, 1.0))
  c.train.update(steps=6000, batch_size=20, eval_every=1000)
  if "small" in c.words:
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Sets a narrow VGG with batch normalisation, and a rate for an 8x8 map."""
  recipes.small(c, learning_rate=3e-3, steps=1000)
  c.model.backbone.update(width=16, batch_norm=True)
  c.model.update(features=64, dropout_rate=0.1)
  c.model.dilation = min(c.model.dilation, 3)
  c.loss.label_stride = 1
