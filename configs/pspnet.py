"""PSPNet (Zhao et al. 2017): python train.py --config=configs/pspnet.py

Data presets: `configs/pspnet.py:shapes` (the default), `:camvid`, `:folder`.
`:camvid,laptop` and `:folder,laptop` fit two CPU cores. `caffe` is the
released Caffe network and its input (for ResNet-101 add
`--config.model.backbone.stride_in_1x1=False`); `multi_scale` evaluates as the
paper's best rows do: six scales, each mirrored too, in windows of the
training crop at steps of two thirds.

The recipe of the author's code (hszhao/semseg): SGD 0.9, learning rate 0.01
and ten times that for the new layers, decay 1e-4, poly 0.9, batch 16, scales
0.5 to 2, rotation by up to 10 degrees, mirroring, auxiliary loss 0.4. (That
code rotates every second image and blurs every second; here all are rotated
and none is blurred.)
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("laptop", "caffe", "multi_scale")
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CAFFE_MEAN = (123.68, 116.779, 103.939)


def get_config(arg: str = "") -> ConfigDict:
  """PSPNet on the data preset, and with the variants, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = with_data(preset)
  with c.unlocked():
    c.name = "pspnet"
    c.model = ConfigDict(
      dict(
        name="pspnet",
        backbone=dict(name="resnet50", output_stride=8, stem="deep", width=64),
        bins=(1, 2, 3, 6),
        head_features=512,
        aux_features=256,
        dropout_rate=0.1,
      )
    )
    c.loss.heads = ConfigDict({"logits": 1.0, "aux_logits": 0.4})
  c.optimizer.multipliers = (("^(pyramid|head|aux_head)/", 10.0),)
  c.augment.rotation = 10.0
  c.train.update(steps=30_000, batch_size=16, eval_every=1000)
  if "caffe" in variants:
    caffe(c, preset)
  if preset == "shapes":
    small(c)
  elif "laptop" in variants:
    laptop(c)
  if "multi_scale" in variants:
    own = c.eval.scales[0]
    c.eval.update(
      mode="sliding", scales=tuple(own * s for s in SCALES), flip=True
    )
  return c


def caffe(c: ConfigDict, preset: str) -> None:
  """The released networks (hszhao/PSPNet), here as the ResNet-50 of ADE20K.

  New biases learn twice as fast as new kernels, running statistics keep 0.95,
  and every window is evaluated with its mirror image (probabilities are
  averaged, where they add scores). Pools have the windows of a crop of 473.
  """
  with c.unlocked():
    c.model.update(pool_crop=473, channel_dropout=False)
    c.model.backbone.update(ceil_mode=True, stride_in_1x1=True)
  if preset == "shapes":
    c.model.pool_crop = c.augment.crop[0]
  elif preset == "folder":
    c.augment.crop = (473, 473)
  recipes.caffe_input(c, CAFFE_MEAN)
  c.norm.update(name="batch", momentum=0.95)
  c.optimizer.multipliers = (
    ("^(head|aux_head)/classifier/bias$", 20.0),
    *c.optimizer.multipliers,
  )
  c.eval.update(mode="sliding", flip=True)


def small(c: ConfigDict) -> None:
  """A narrow, short ResNet at output stride 4: minutes on two CPU cores."""
  c.augment.rotation = 0.0
  recipes.from_scratch(c, learning_rate=4e-3, steps=1100)
  with c.unlocked():
    c.model.backbone.update(
      name="resnet18", output_stride=4, width=16, stage_sizes=(2, 2, 2, 1)
    )
  c.model.update(head_features=64, aux_features=64)
  c.eval.batch_size = 50


def laptop(c: ConfigDict) -> None:
  """ResNet-18 at output stride 16, see `recipes.half_size`."""
  c.augment.rotation = 0.0
  recipes.half_size(c)
  c.model.backbone.update(name="resnet18", output_stride=16, stem="conv7")
  c.model.update(head_features=256, aux_features=128)
