"""Deformable DeepLab: python train.py --config=configs/deformable_deeplab.py

Dai et al. 2017. Data presets: `:shapes` (the default; narrow, minutes on two
CPU cores), `:camvid`, `:folder`. `modulated` is deformable ConvNets v2: three
stages deform, and offsets learn ten times more slowly. `scratch` trains what
the paper freezes as ImageNet left it (normalisation, stem and first stage):
without `scratch`, give `--config.init.backbone=resnet101.npz
--config.init.skip='("offset",)'`. Those are torchvision's weights, so strides,
pooling and input are here as they were trained with, not as in Caffe's.

The recipe of the authors' code for Cityscapes: SGD 0.9, decay 5e-4, learning
rate 5e-4 after a warm-up of 1000 steps (a linear one), a tenth of it from 40.3
of the 53 epochs on, one whole image a step, mirroring, biases twice as fast:
those of the offsets too, whose kernels have the plain rate.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("modulated", "scratch")


def get_config(arg: str = "") -> ConfigDict:
  """Deformable DeepLab on the data preset, with the variants, `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  modulated, frozen = "modulated" in variants, "scratch" not in variants
  c = with_data(preset)
  with c.unlocked():
    c.name = "deformable_deeplab"
    c.model = ConfigDict(
      dict(
        name="deformable_deeplab",
        backbone=dict(
          name="resnet101",
          output_stride=16,
          deformable_stages=(2, 3, 4) if modulated else (4,),
          modulated=modulated,
          stride_in_1x1=False,
          ceil_mode=False,
          width=64,
        ),
        features=1024,
      )
    )
  recipes.caffe_sgd(c)
  c.augment.update(crop=c.data.canvas, scale=(1.0, 1.0))
  c.norm.update(name="batch", frozen=frozen)
  as_pretrained = (
    (r"^backbone/.*norm/(scale|bias)$", 0.0),
    (r"^backbone/(stem|stage1_)", 0.0),
  )
  offsets = 0.1 if modulated else 1.0
  c.optimizer.update(
    learning_rate=5e-4,
    multipliers=(
      *(as_pretrained if frozen else ()),
      ("/offset/kernel$", offsets),
      ("/offset/bias$", 2 * offsets),
      ("bias$", 2.0),
    ),
  )
  c.schedule.update(
    name="step",
    step_fractions=(40.336 / 53,),
    step_factor=0.1,
    warmup_steps=1000,
  )
  # 53 epochs of CamVid's 367 images.
  c.train.update(steps=19_451, batch_size=1, eval_every=1000)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow, short ResNet at output stride 4 that trains from nothing."""
  recipes.from_scratch(c, learning_rate=4e-3, steps=1000)
  c.norm.frozen = False
  c.model.features = 64
  with c.unlocked():
    c.model.backbone.update(
      name="resnet18", output_stride=4, width=16, stage_sizes=(2, 2, 2, 1)
    )
