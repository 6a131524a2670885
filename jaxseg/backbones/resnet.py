"""ResNet: deep residual learning (He et al. 2015, arXiv:1512.03385, Table 1).

The idea: a block learns the difference to its input, `x + f(x)`. Layer list
and counts are torchvision's (models/resnet.py, "v1.5": the stride sits on the
3x3 convolution). Levels, by nominal stride:

| level | tensor                          | stride |
|-------|---------------------------------|--------|
| c1    | stem after ReLU, before pooling | 2      |
| c2    | last block of stage 1 (conv2_x) | 4      |
| c3    | last block of stage 2 (conv3_x) | 8      |
| c4    | last block of stage 3 (conv4_x) | 16     |
| c5    | last block of stage 4 (conv5_x) | 32     |

Stems: "conv7" is 7x7/2 (torchvision); "deep" is 3x3/2, 3x3, 3x3 of 64, 64,
128 features (PSPNet's Caffe network, semseg, TensorFlow's resnet_v1_beta).

Its relatives differ by a field or two:
- ResNeXt (Xie et al. 2017, arXiv:1611.05431, Table 1): `groups` branches of
  `width_per_group` channels in the 3x3 convolution;
- SENet (Hu et al. 2018, arXiv:1709.01507, Fig. 3): a squeeze-and-excitation
  of ratio 16 before the addition;
- deformable ConvNets (arXiv:1703.06211, 1811.11168): deformable 3x3
  convolutions in some stages; the fourth in the authors' DeepLab.
The authors' Caffe ResNet and SENet stride in the first 1x1 convolution and
pool in ceil mode: `stride_in_1x1=True, ceil_mode=True`.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.strides import Stage, dilate, stage_max_pool
from jaxseg.layers.conv import Conv, ConvNormAct
from jaxseg.layers.deformable import DeformableConv
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.squeeze_excite import SqueezeExcite
from jaxseg.types import Activation, Features, Images


class BasicBlock(nn.Module):
  """Two 3x3 convolutions (Fig. 5 left).

  Attributes:
    features: the block's output features.
    dilations: of the convolution that strides, and of those after it.
    conv: a factory of `ConvNormAct`.
    spatial: the convolution of the 3x3 layers: `Conv`, `DeformableConv`.
    squeeze_excite: a factory of `SqueezeExcite`, or None.
  """

  features: int
  strides: int = 1
  dilations: tuple[int, int] = (1, 1)
  conv: Callable[..., Any] = ConvNormAct
  spatial: Callable[..., Any] = Conv
  squeeze_excite: Callable[..., Any] | None = None
  act: Activation = nn.relu

  expansion = 1

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    conv = functools.partial(self.conv, self.features, conv=self.spatial)
    first, second = self.dilations
    y = conv(strides=self.strides, dilation=first, name="conv1")(x, train=train)
    y = conv(dilation=second, act=None, name="conv2")(y, train=train)
    if self.squeeze_excite is not None:
      y = self.squeeze_excite(max(self.features // 16, 1), name="se")(y)
    if x.shape != y.shape:
      x = self.conv(
        self.features, 1, strides=self.strides, act=None, name="project"
      )(x, train=train)
    return self.act(x + y)


class Bottleneck(nn.Module):
  """1x1 down, 3x3, 1x1 up by four (Fig. 5 right).

  Attributes:
    features: a quarter of the block's output features.
    groups: groups of the 3x3 convolution.
    width_per_group: its channels in each, where `features` is 64.
    stride_in_1x1: strides in the first convolution instead of the second.
  """

  features: int
  strides: int = 1
  dilations: tuple[int, int] = (1, 1)
  groups: int = 1
  width_per_group: int = 64
  stride_in_1x1: bool = False
  conv: Callable[..., Any] = ConvNormAct
  spatial: Callable[..., Any] = Conv
  squeeze_excite: Callable[..., Any] | None = None
  act: Activation = nn.relu

  expansion = 4

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    width = self.features * self.width_per_group // 64 * self.groups
    out = self.features * self.expansion
    strides, dilation = (1, self.strides), self.dilations[0]
    if self.stride_in_1x1:
      # The 3x3 comes after the stride, and is dilated like what follows.
      strides, dilation = (self.strides, 1), self.dilations[1]
    y = self.conv(width, 1, strides=strides[0], name="conv1")(x, train=train)
    y = self.conv(
      width,
      strides=strides[1],
      dilation=dilation,
      groups=self.groups,
      conv=self.spatial,
      name="conv2",
    )(y, train=train)
    y = self.conv(out, 1, act=None, name="conv3")(y, train=train)
    if self.squeeze_excite is not None:
      y = self.squeeze_excite(max(out // 16, 1), name="se")(y)
    if x.shape != y.shape:
      x = self.conv(out, 1, strides=self.strides, act=None, name="project")(
        x, train=train
      )
    return self.act(x + y)


class ResNet(nn.Module):
  """A ResNet trunk: image `[n, h, w, 3]` -> `{"c1": ..., "c5": ...}`.

  Attributes:
    stage_sizes: blocks in each of the four stages.
    block: `BasicBlock` or `Bottleneck`.
    width: features of the first stage; it doubles at each stage.
    groups: groups of the bottlenecks' 3x3 convolutions (ResNeXt).
    width_per_group: channels of each group in the first stage at width 64.
    stride_in_1x1: bottlenecks stride in their first convolution.
    stem: "conv7" or "deep".
    ceil_mode: pool the last, partial window too.
    output_stride: 32, 16, 8 or 4; later strides become dilations.
    contract_dilation: the first block of a dilated stage keeps the previous
      dilation (torchvision) instead of the stage's own (semseg, Caffe PSPNet).
    multi_grid: factors on the dilation of the last stage's blocks, as
      multiples of the stage's (DeepLab v3, arXiv:1706.05587, Sec. 3.2.1).
    squeeze_excite: gate each block's output (SENet).
    deformable_stages: stages, 1 to 4, of deformable 3x3 convolutions.
    modulated: those are deformable ConvNets v2's.
    offset_groups: blocks of their channels with offsets of their own.
  """

  stage_sizes: tuple[int, ...]
  block: type[nn.Module]
  width: int = 64
  groups: int = 1
  width_per_group: int = 64
  stride_in_1x1: bool = False
  stem: str = "conv7"
  ceil_mode: bool = False
  output_stride: int = 32
  contract_dilation: bool = True
  multi_grid: tuple[int, ...] = ()
  squeeze_excite: bool = False
  deformable_stages: tuple[int, ...] = ()
  modulated: bool = False
  offset_groups: int = 1
  norm: Callable[..., Any] = BatchNorm
  act: Activation = nn.relu
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Features:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    conv = functools.partial(ConvNormAct, norm=self.norm, act=self.act, **types)
    deformable = functools.partial(
      DeformableConv,
      modulated=self.modulated,
      offset_groups=self.offset_groups,
    )
    block = self._block(conv)
    features = {}
    x = image
    if self.stem == "deep":
      x = conv(self.width, strides=2, name="stem1")(x, train=train)
      x = conv(self.width, name="stem2")(x, train=train)
      x = conv(2 * self.width, name="stem3")(x, train=train)
    else:
      x = conv(self.width, 7, strides=2, name="stem")(x, train=train)
    features["c1"] = x

    _, pool, *stages = dilate((2, 2, 1, 2, 2, 2), self.output_stride)
    x = stage_max_pool(x, 3, pool, padding=1, ceil_mode=self.ceil_mode)
    for s, (size, stage) in enumerate(
      zip(self.stage_sizes, stages, strict=True), start=1
    ):
      for b in range(size):
        x = block(
          self.width * 2 ** (s - 1),
          strides=stage.stride if b == 0 else 1,
          dilations=self._dilations(s, b, stage),
          spatial=deformable if s in self.deformable_stages else Conv,
          name=f"stage{s}_block{b + 1}",
        )(x, train=train)
      features[f"c{s + 1}"] = x
    return features

  def _block(self, conv: Callable[..., Any]) -> Callable[..., nn.Module]:
    """What the stages are made of."""
    fields = {"conv": conv, "act": self.act}
    if self.squeeze_excite:
      fields["squeeze_excite"] = functools.partial(
        SqueezeExcite, dtype=self.dtype, param_dtype=self.param_dtype
      )
    if self.block is Bottleneck:
      fields["groups"] = self.groups
      fields["width_per_group"] = self.width_per_group
      fields["stride_in_1x1"] = self.stride_in_1x1
    return functools.partial(self.block, **fields)

  def _dilations(self, s: int, b: int, stage: Stage) -> tuple[int, int]:
    """Of block `b` of stage `s`: where it strides, and after."""
    if self.multi_grid and s == len(self.stage_sizes):
      return (stage.dilation * self.multi_grid[b % len(self.multi_grid)],) * 2
    first = b == 0 and self.contract_dilation
    return (stage.previous if first else stage.dilation, stage.dilation)


_basic = functools.partial(ResNet, block=BasicBlock)
_bottleneck = functools.partial(ResNet, block=Bottleneck)
_50 = functools.partial(_bottleneck, stage_sizes=(3, 4, 6, 3))
_101 = functools.partial(_bottleneck, stage_sizes=(3, 4, 23, 3))
_152 = functools.partial(_bottleneck, stage_sizes=(3, 8, 36, 3))
_32x4d = {"groups": 32, "width_per_group": 4}
_32x8d = {"groups": 32, "width_per_group": 8}
RESNETS = {
  "resnet18": functools.partial(_basic, stage_sizes=(2, 2, 2, 2)),
  "resnet34": functools.partial(_basic, stage_sizes=(3, 4, 6, 3)),
  "resnet50": _50,
  "resnet101": _101,
  "resnet152": _152,
  "resnext50_32x4d": functools.partial(_50, **_32x4d),
  "resnext101_32x8d": functools.partial(_101, **_32x8d),
  "se_resnet50": functools.partial(_50, squeeze_excite=True),
  "se_resnet101": functools.partial(_101, squeeze_excite=True),
  "se_resnet152": functools.partial(_152, squeeze_excite=True),
  "se_resnext50_32x4d": functools.partial(_50, **_32x4d, squeeze_excite=True),
}
