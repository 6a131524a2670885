"""DilatedNet (2016): python train.py --config=configs/dilatednet.py

Data presets: `configs/dilatednet.py:shapes` (the default), `:camvid`,
`:folder`. Trained in two stages, as the paper did for CamVid (App. A.1):

1. the front end alone (`:camvid,frontend`): SGD 0.99, batch 8, rate 1e-4,
   20,000 steps on windows of 628x628 of the mirrored image, 256 of its own;
   from VGG-16, --config.init.backbone=vgg16.npz;
2. all of it, the context beginning as the identity (`:camvid`): SGD 0.9,
   batch 1, rate 1e-5, on windows of 852, 480 of its own: here whole images;
   --config.init.model=runs/frontend --config.init.skip="('^context/',)".
   The paper does not say how many steps; here 20,000 as for KITTI.

Decay 5e-4, the loss on every eighth pixel, where the scores are. Images are
normalised as torchvision's weights expect; Caffe's would want
`recipes.caffe_input(c, mean=(105.412, 108.778, 110.703))`, CamVid's mean.
Variants `large`, `layers7` and `layers10` choose the other contexts (VOC's,
KITTI's, Cityscapes').
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("frontend", "large", "layers7", "layers10")


def get_config(arg: str = "") -> ConfigDict:
  """DilatedNet on the data preset, and with the variants, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = with_data(preset)
  with c.unlocked():
    c.name = "dilatednet"
    c.model = ConfigDict(
      dict(
        name="dilatednet",
        backbone=dict(name="vgg16", width=64, batch_norm=False),
        features=4096,
        kernel_size=7,
        dropout_rate=0.5,
        context="basic",
        context_layers=8,
      )
    )
  recipes.caffe_sgd(c)
  c.schedule.name = "constant"
  c.loss.label_stride = 8
  c.augment.scale = (1.0, 1.0)
  c.optimizer.learning_rate = 1e-5
  c.train.update(steps=20_000, batch_size=1, eval_every=2000)
  if "frontend" in variants:
    frontend(c)
  elif "large" in variants:
    c.model.context = "large"
  if "layers7" in variants:
    c.model.context_layers = 7
  elif "layers10" in variants:
    c.model.context_layers = 10
  if preset == "shapes":
    small(c)
  return c


def frontend(c: ConfigDict) -> None:
  """The first stage: the front end alone."""
  c.model.context = "none"
  c.augment.crop = (256, 256)
  c.optimizer.update(learning_rate=1e-4, momentum=0.99)
  c.train.batch_size = 8


def small(c: ConfigDict) -> None:
  """A narrow VGG of single layers and a 3x3 fc6: minutes on two CPU cores."""
  recipes.from_scratch(c, learning_rate=4e-3, steps=1000)
  with c.unlocked():
    c.model.backbone.update(
      width=12, stage_sizes=(1, 1, 1, 1, 1), batch_norm=True
    )
  c.model.update(features=96, kernel_size=3, dropout_rate=0.0)
  c.loss.label_stride = 1
  c.augment.crop = (64, 64)
  c.eval.batch_size = 50
