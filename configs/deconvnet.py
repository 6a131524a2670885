"""DeconvNet (2015): python train.py --config=configs/deconvnet.py

Data presets: `configs/deconvnet.py:shapes` (the default), `:camvid`,
`:folder`. The network learns from boxes of 224x224, in two stages:

1. easy boxes, each around one object, which fill most of it
   (`:camvid,stage1`): 20,000 updates;
2. boxes of any content, from the weights of stage 1
   (`:camvid --config.init.model=runs/stage1`): 40,000 updates.

The authors cut stage 1 around the objects of PASCAL VOC, enlarged 1.2 times
and with all but the object in the middle labelled background, and stage 2
around EdgeBox proposals. Data sets of scenes have neither, so that here both
stages take random boxes: small ones enlarged to 224 in stage 1, boxes of
either side of 224 in stage 2. SGD 0.9, rate 0.01 divided by ten every 9,000
(stage 1) or 10,000 updates, decay 5e-4, 64 boxes an update as 8 batches of 8,
mirrored at random; VGG-16 from ImageNet by
--config.init.backbone=vgg16_bn.pth, whose normalisation is used.

Evaluation here slides a 224x224 window; `jaxseg.evaluation.proposals` takes
the maximum over given boxes, as the paper does.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("stage1",)
BATCHES = 8  # in one update


def get_config(arg: str = "") -> ConfigDict:
  """DeconvNet on the data preset, and in the stage, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = with_data(preset)
  with c.unlocked():
    c.name = "deconvnet"
    c.model = ConfigDict(
      dict(
        name="deconvnet",
        backbone=dict(name="vgg16_bn", width=64),
        fc_features=4096,
        fc_kernel=7,
        init_deviation=0.01,
      )
    )
  recipes.caffe_sgd(c)
  c.optimizer.update(learning_rate=0.01, accumulate=BATCHES)
  c.augment.update(crop=(224, 224), scale=(0.7, 1.4), flip=True)
  c.schedule.update(name="step", step_fractions=(0.25, 0.5, 0.75))
  c.train.update(steps=40_000 * BATCHES, batch_size=8)
  if "stage1" in variants:
    c.augment.scale = (1.4, 2.8)
    c.schedule.step_fractions = (0.45, 0.9)
    c.train.steps = 20_000 * BATCHES
  c.train.update(eval_every=8000, checkpoint_every=8000)
  c.train.norm_batches = 501  # As the authors' script has it.
  c.eval.mode = "sliding"
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow VGG and a 2x2 fc6, on whole scenes: minutes on two CPU cores."""
  recipes.from_scratch(c, learning_rate=8e-3, steps=1000)
  with c.unlocked():
    c.model.backbone.update(width=12, stage_sizes=(1, 1, 1, 1, 1))
  c.model.update(fc_features=64, fc_kernel=2, init_deviation=0.1)
  c.optimizer.accumulate = 1
  c.augment.update(crop=(64, 64), scale=(1.0, 1.0))
  c.eval.update(mode="whole", batch_size=50)
