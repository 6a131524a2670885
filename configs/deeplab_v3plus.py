"""DeepLab v3+: python train.py --config=configs/deeplab_v3plus.py

Chen et al. 2018. Data presets: `:shapes` (the default; narrow, minutes on two
CPU cores), `:camvid`, `:folder`. `resnet` has a ResNet-101 (or another, by
`--config.model.backbone.name=resnet50`) that starts from torchvision's weights
with `--config.init.backbone=resnet101.npz`; `imagenet` any other encoder of
theirs: `:camvid,imagenet --config.model.backbone.name=mobilenet_v2`, or
`efficientnet_b0`. `laptop` has a ResNet-18 that fits two CPU cores.

The recipe of the paper (Sec. 4, v3's) and of the authors' code: SGD 0.9,
learning rate 0.007, poly 0.9 over 30,000 steps, batch 16, crops of 513 at
output stride 16, decay 4e-5 (ResNet: 1e-4), scales 0.5 to 2, mirroring, images
in [-1, 1] (but for ImageNet's weights, which expect its mean and deviation).
Running statistics that keep 0.9997 need such many steps: where images are a
folder, `train.norm_batches` takes them anew for each evaluation. Weights fit
any output stride: to go on at 8, start from a run with
`--config.model.backbone.output_stride=8 --config.init.model=RUN`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("resnet", "imagenet", "laptop")


def get_config(arg: str = "") -> ConfigDict:
  """DeepLab v3+ on the data preset, and with the variants, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = with_data(preset)
  with c.unlocked():
    c.name = "deeplab_v3plus"
    c.model = ConfigDict(
      dict(
        name="deeplab_v3plus",
        backbone=dict(name="xception65", output_stride=16),
        rates=(6, 12, 18),
        features=256,
        low_level_features=48,
        decoder_convs=2,
        separable_aspp=True,
        separable_decoder=True,
        dropout_rate=0.1,
      )
    )
  if preset == "folder":
    c.data.canvas = c.augment.crop = (513, 513)
    c.train.norm_batches = 50
  recipes.deeplab_sgd(c, weight_decay=4e-5)
  c.train.update(steps=30_000, batch_size=16, eval_every=1000)
  if "resnet" in variants:
    resnet(c)
  elif "imagenet" not in variants:
    c.data.update(mean=(0.5,) * 3, std=(0.5,) * 3)
  if preset == "shapes":
    small(c)
  elif "laptop" in variants:
    laptop(c)
  return c


def resnet(c: ConfigDict) -> None:
  """ResNet-101 with torchvision's stem, all norms as the paper's."""
  with c.unlocked():
    c.model.backbone.update(name="resnet101", stem="conv7")
  c.norm.update(name="batch", momentum=0.9997)
  c.optimizer.weight_decay = 1e-4


def small(c: ConfigDict) -> None:
  """A narrow ResNet at output stride 8 and a decoder to match.

  With plain convolutions, as the paper's ResNets have: before a depthwise one
  with a norm the scale of another norm hardly learns, nothing depends on it.
  """
  recipes.from_scratch(c, learning_rate=4e-3, steps=1000)
  c.norm.update(name="batch", momentum=0.9)
  c.model.update(rates=(1, 2, 3), features=64, low_level_features=16)
  c.model.update(separable_aspp=False, separable_decoder=False)
  with c.unlocked():
    c.model.backbone.update(
      name="resnet18", output_stride=8, stem="conv7", width=16
    )


def laptop(c: ConfigDict) -> None:
  """ResNet-18 at output stride 16, see `recipes.half_size`."""
  recipes.half_size(c)
  c.norm.update(name="batch", momentum=0.9)
  c.model.update(rates=(2, 4, 6), features=128)
  with c.unlocked():
    c.model.backbone.update(name="resnet18", stem="conv7")
