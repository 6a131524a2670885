"""DeepLab v3+ (Chen et al. 2018, arXiv:1802.02611).

  python train.py --config=configs/deeplab_v3plus.py
  python train.py --config=configs/deeplab_v3plus.py:camvid,laptop
  python train.py --config=configs/deeplab_v3plus.py:camvid,resnet
    --config.init.backbone=resnet101.npz

Words: a data preset; a backbone; `small`; `laptop` for a ResNet-18 that fits
two CPU cores; `resnet` for a ResNet-101, or a ResNet named by another word,
that starts from torchvision's weights; `imagenet` for any other backbone that
starts from ImageNet's weights, as in `:camvid,imagenet,mobilenet_v2`.

The recipe of the paper (Sec. 4, that of v3) and of the authors' code: SGD with
momentum 0.9, a learning rate of 0.007, poly 0.9 over 30,000 steps, batch 16,
crops of 513 at output stride 16, a decay of 4e-5 (ResNet: 1e-4), scales 0.5 to
2, mirroring, images in [-1, 1] (ImageNet's weights expect its mean and
deviation instead). Running averages that keep 0.9997 need that many steps; for
a folder, `train.norm_batches` recomputes them before each evaluation. Weights
fit any output stride: `--config.model.backbone.output_stride=8
--config.init.model=RUN` continues a run at 8.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "laptop", "resnet", "imagenet")
EXCLUSIVE = (("small", "laptop", "resnet"), ("resnet", "imagenet"))


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("deeplab_v3plus", arg, WORDS, exclusive=EXCLUSIVE)
  if c.data.name == "folder":
    c.augment.crop = (513, 513)
    c.train.norm_batches = 50
  recipes.deeplab_sgd(c, learning_rate=0.007, weight_decay=4e-5)
  c.train.update(steps=30_000, batch_size=16, eval_every=1000)
  if "resnet" in c.words:
    resnet(c)
  elif "imagenet" not in c.words:
    c.data.update(mean=(0.5,) * 3, std=(0.5,) * 3)
  if "small" in c.words:
    small(c)
  elif "laptop" in c.words:
    laptop(c)
  return c


def resnet(c: ConfigDict) -> None:
  """Sets a ResNet with torchvision's stem, and the paper's decay of norms."""
  name = c.model.backbone.name
  name = "resnet101" if name == "xception65" else name
  recipes.replace_backbone(c, name, stem="conv7")
  c.norm.momentum = 0.9997
  c.optimizer.weight_decay = 1e-4


def small(c: ConfigDict) -> None:
  """Sets a narrow ResNet at output stride 8, and a decoder to match.

  Convolutions are plain, as those of the paper's ResNets. The scale of a norm
  before a depthwise convolution with a norm would hardly learn, because the
  output hardly depends on it.
  """
  recipes.small(c, learning_rate=4e-3, steps=1000)
  c.norm.momentum = 0.9
  c.model.update(rates=(1, 2, 3), features=64, low_level_features=16)
  c.model.update(separable_aspp=False, separable_decoder=False)
  fields = dict(output_stride=8, stem="conv7", width=16)
  recipes.replace_backbone(c, "resnet18", **fields)


def laptop(c: ConfigDict) -> None:
  """Sets a ResNet-18 at output stride 16, see `recipes.half_size`."""
  recipes.half_size(c)
  c.norm.momentum = 0.9
  c.model.update(rates=(2, 4, 6), features=128)
  recipes.replace_backbone(c, "resnet18", stem="conv7")
