"""DeepLab v2 (Chen et al. 2018): python train.py --config=configs/deeplab_v2.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. ResNet-101 with multi-scale inputs is the default; `vgg`
is ASPP-L on VGG-16, and `scratch` trains the batch normalisation, which the
paper freezes as ImageNet left it: without `scratch`, give
`--config.init.backbone=resnet101.npz`. The dense CRF is
`--config.eval.crf=deeplab_v2`.

The recipe of the paper and its ports (Sec. 4.1; Table 2): SGD 0.9, batch 10,
learning rate 2.5e-4 (VGG: 1e-3) and ten times that for the pyramid (biases
twenty times), poly 0.9 over 20,000 steps, decay 5e-4, scales 0.5 to 1.5,
mirroring, crops of 321, loss on every eighth pixel of each scale and of
their maximum.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("vgg", "scratch")
SCALES = (0.5, 0.75, 1.0)


def get_config(arg: str = "") -> ConfigDict:
  """DeepLab v2 on the data preset, and with the variants, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  vgg = "vgg" in variants
  c = with_data(preset)
  with c.unlocked():
    c.name = "deeplab_v2"
    c.model = ConfigDict(
      dict(
        name="deeplab_v2",
        backbone=dict(name="vgg16" if vgg else "resnet101", width=64),
        rates=(6, 12, 18, 24),
        hidden_features=1024 if vgg else 0,
        dropout_rate=0.5,
        scales=(1.0,) if vgg else SCALES,
      )
    )
    if not vgg:
      heads = {f"aux_logits_{scale * 100:g}": 1.0 for scale in SCALES}
      c.loss.heads = ConfigDict({"logits": 1.0, **heads})
  recipes.caffe_sgd(c)
  frozen = not vgg and "scratch" not in variants
  c.norm.update(name="batch", frozen=frozen)
  c.optimizer.learning_rate = 1e-3 if vgg else 2.5e-4
  c.optimizer.multipliers = (
    # The published training leaves scale and shift alone as well.
    *([("^backbone/.*norm/(scale|bias)$", 0.0)] if frozen else []),
    ("^aspp/.*kernel$", 10.0),
    ("^aspp/.*bias$", 20.0),
    *([("bias$", 2.0)] if vgg else []),
  )
  c.loss.label_stride = 8
  c.augment.update(crop=(321, 321), scale=(0.5, 1.5))
  c.train.update(steps=20_000, batch_size=10, eval_every=1000)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow ResNet-18 or VGG-16 that trains from random weights."""
  recipes.from_scratch(c, learning_rate=3e-3, steps=1000)
  c.norm.frozen = False
  c.model.backbone.width = 16
  with c.unlocked():
    if c.model.hidden_features:
      c.model.backbone.batch_norm = True
      c.model.update(hidden_features=32, dropout_rate=0.1)
    else:
      c.model.backbone.update(name="resnet18", stage_sizes=(2, 2, 2, 1))
  c.model.rates = (1, 2, 3, 4)
  c.augment.update(crop=(64, 64), scale=(1.0, 1.0))
  c.loss.label_stride = 1
