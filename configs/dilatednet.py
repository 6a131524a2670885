"""DilatedNet (Yu & Koltun 2016, arXiv:1511.07122).

  python train.py --config=configs/dilatednet.py
  python train.py --config=configs/dilatednet.py:camvid,frontend
    --workdir=runs/frontend --config.init.backbone=vgg16.npz
  python train.py --config=configs/dilatednet.py:camvid
    --config.init.model=runs/frontend --config.init.skip="('^context/',)"

Words: a data preset; a backbone; `small`; `frontend`; `large` for the large
context module; `layers7` or `layers10` for the number of its layers (basic
with 8 is CamVid's; VOC's, KITTI's and Cityscapes' are among the others).

The paper trains in two stages for CamVid (App. A.1):

1. `frontend`, the front end alone: SGD with momentum 0.99, batch 8, a learning
   rate of 1e-4, 20,000 steps on windows of 628x628 of the mirrored image, of
   which 256x256 have labels; from VGG-16;
2. the whole network, whose context module starts as the identity: momentum
   0.9, batch 1, a learning rate of 1e-5, on windows of 852, of which 480 have
   labels; here on whole images. The paper does not say how many steps; here
   20,000 as for KITTI.

Decay is 5e-4, and the loss is on every eighth pixel, where the scores are.
Images are normalised as torchvision's weights expect; Caffe's weights need
`recipes.caffe_input(c, mean=(105.412, 108.778, 110.703))`, CamVid's mean.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "frontend", "large", "layers7", "layers10")
EXCLUSIVE = (("frontend", "large"), ("frontend", "layers7", "layers10"))


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("dilatednet", arg, WORDS, exclusive=EXCLUSIVE)
  recipes.caffe_sgd(c)
  c.schedule.name = "constant"
  c.loss.label_stride = 8
  c.augment.scale = (1.0, 1.0)
  c.optimizer.learning_rate = 1e-5
  c.train.update(steps=20_000, batch_size=1, eval_every=2000)
  if "frontend" in c.words:
    c.model.context = "none"
    c.augment.crop = (256, 256)
    c.optimizer.update(learning_rate=1e-4, momentum=0.99)
    c.train.batch_size = 8
  if "large" in c.words:
    c.model.context = "large"
  if "layers7" in c.words:
    c.model.context_layers = 7
  if "layers10" in c.words:
    c.model.context_layers = 10
  if "small" in c.words:
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Sets a narrow VGG of single layers and a 3x3 fc6."""
  recipes.small(c, learning_rate=4e-3, steps=1000, eval_batch_size=50)
  c.model.backbone.update(
    width=12, stage_sizes=(1, 1, 1, 1, 1), batch_norm=True
  )
  c.model.update(features=96, kernel_size=3, dropout_rate=0.0)
  c.loss.label_stride = 1
