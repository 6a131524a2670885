"""SegNet (Badrinarayanan et al. 2017, arXiv:1511.00561).

  python train.py --config=configs/segnet.py
  python train.py --config=configs/segnet.py:camvid
    --config.init.backbone=vgg16_bn.pth

Words: a data preset; a backbone; `small`.

The published recipe (SegNet-Tutorial's solver and prototxt): SGD with momentum
0.9, a fixed learning rate of 0.001, decay 5e-4, batch 4, 40,000 steps; images
of 360x480 without augmentation; classes weighted by median frequency, the loss
divided by the number of pixels. The statistics of the norms are those of all
training images, recomputed before each evaluation. The encoder starts from
VGG-16, a converted file or torchvision's. Images are normalised as that file
expects; from random weights the published 0..255 would train alike, because
the norm after the first convolution cancels shift and scale.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small",)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("segnet", arg, WORDS)
  recipes.caffe_sgd(c)
  recipes.median_frequency(c)
  c.optimizer.learning_rate = 1e-3
  c.schedule.name = "constant"
  c.augment.update(scale=(1.0, 1.0), flip=False)
  c.train.update(steps=40_000, batch_size=4, eval_every=1000)
  c.train.norm_batches = 92  # All 367 training images of CamVid.
  if "small" in c.words:
    recipes.small(c, learning_rate=4e-3, steps=1000, eval_batch_size=50)
    c.augment.flip = True
    c.loss.balance = ""
    c.model.backbone.update(width=8, stage_sizes=(2, 2, 2, 1, 1))
  return c
