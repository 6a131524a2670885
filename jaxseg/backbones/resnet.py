"""ResNet: deep residual learning (He et al. 2015, arXiv:1512.03385, Table 1).

The idea: a block learns the difference to its input, `x + f(x)`. Layers and
parameter counts are torchvision's (models/resnet.py, "v1.5": the 3x3
convolution of a block has the stride). Levels, by nominal stride:

| level | tensor                          | stride |
|-------|---------------------------------|--------|
| c1    | stem after ReLU, before pooling | 2      |
| c2    | last block of stage 1 (conv2_x) | 4      |
| c3    | last block of stage 2 (conv3_x) | 8      |
| c4    | last block of stage 3 (conv4_x) | 16     |
| c5    | last block of stage 4 (conv5_x) | 32     |

Related networks differ in one or two fields:
- ResNeXt (Xie et al. 2017, arXiv:1611.05431, Table 1): `groups` branches of
  `width_per_group` channels in the 3x3 convolution.
- SENet (Hu et al. 2018, arXiv:1709.01507, Fig. 3): squeeze-and-excitation of
  ratio 16 before the addition, `squeeze_excite=True`.
- Deformable ConvNets (arXiv:1703.06211, arXiv:1811.11168): deformable 3x3
  convolutions in `deformable_stages`; the fourth in the authors' DeepLab.

Other implementations of ResNet differ in these fields:
- `stem`: "conv7" is 7x7 of stride 2 (torchvision). "deep" is 3x3 of stride 2,
  3x3, 3x3, of 64, 64 and 128 features (PSPNet's Caffe network, semseg,
  TensorFlow's resnet_v1_beta).
- `stride_in_1x1=True, ceil_mode=True`: the authors' Caffe ResNet and SENet.
- `contract_dilation=False`: semseg and PSPNet's Caffe network.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.strides import Stage, dilate, stage_max_pool
from jaxseg.errors import unknown_name
from jaxseg.layers.conv import Conv, ConvNormAct
from jaxseg.layers.deformable import DeformableConv
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.squeeze_excite import SqueezeExcite
from jaxseg.types import Activation, Features, Images

STEMS = ("conv7", "deep")


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut (Fig. 5 left).

  Attributes:
    features: Output features.
    strides: Stride of the first convolution and of the shortcut.
    dilations: Dilations of the two convolutions.
    conv: Factory of `ConvNormAct`.
    spatial: Convolution of the 3x3 layers: `Conv` or a `DeformableConv`.
    squeeze_excite: Factory of `SqueezeExcite`, or None.
    act: Activation after the addition.
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
  """1x1 reduction, 3x3, 1x1 expansion by four, and a shortcut (Fig. 5 right).

  Attributes:
    features: A quarter of the output features.
    strides: Stride of the 3x3 convolution and of the shortcut.
    dilations: Dilations at and after the stride. The 3x3 convolution has the
      first, or the second if `stride_in_1x1`.
    groups: Number of groups of the 3x3 convolution.
    width_per_group: Channels per group of the 3x3 convolution if `features` is
      64; proportional to `features`.
    stride_in_1x1: Whether the first convolution has the stride instead of the
      3x3 convolution.
    conv: Factory of `ConvNormAct`.
    spatial: Convolution of the 3x3 layer: `Conv` or a `DeformableConv`.
    squeeze_excite: Factory of `SqueezeExcite`, or None.
    act: Activation after the addition.
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
      # The 3x3 convolution comes after the stride.
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
  """A ResNet trunk: image `[n, h, w, 3]` to `{"c1": ..., "c5": ...}`.

  Attributes:
    stage_sizes: Number of blocks in each of the four stages.
    block: Class of the blocks: `BasicBlock` or `Bottleneck`.
    width: Features of the first stage, which double at each stage.
    output_stride: Stride of c5: 32, 16, 8 or 4; later strides become
      dilations.
    multi_grid: Factors by which the dilations of the last stage's blocks are
      multiplied (DeepLab v3, arXiv:1706.05587, Sec. 3.2.1); () for none.
    groups: Number of groups of the bottlenecks' 3x3 convolutions (ResNeXt).
    width_per_group: Channels per group in the first stage at width 64.
    squeeze_excite: Whether squeeze-and-excitation gates each block (SENet).
    deformable_stages: Stages, 1 to 4, whose 3x3 convolutions are deformable.
    modulated: Whether these are the modulated ones of Deformable ConvNets v2.
    offset_groups: Number of channel groups with separate offsets.
    stem: First layers: "conv7" or "deep".
    stride_in_1x1: Whether the first convolution of a bottleneck has the stride.
    ceil_mode: Whether the pool keeps the last, partial window.
    contract_dilation: Whether the first block of a dilated stage has the
      dilation of the previous stage (torchvision) instead of its own stage's
      (semseg, PSPNet's Caffe network).
    norm: Factory of the normalisation layers.
    act: Activation.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  stage_sizes: tuple[int, ...]
  block: type[nn.Module]
  width: int = 64
  output_stride: int = 32
  multi_grid: tuple[int, ...] = ()
  # Related networks.
  groups: int = 1
  width_per_group: int = 64
  squeeze_excite: bool = False
  deformable_stages: tuple[int, ...] = ()
  modulated: bool = False
  offset_groups: int = 1
  # Other implementations.
  stem: str = "conv7"
  stride_in_1x1: bool = False
  ceil_mode: bool = False
  contract_dilation: bool = True
  norm: Callable[..., Any] = BatchNorm
  act: Activation = nn.relu
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Features:
    conv = functools.partial(
      ConvNormAct,
      norm=self.norm,
      act=self.act,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    deformable = functools.partial(
      DeformableConv,
      modulated=self.modulated,
      offset_groups=self.offset_groups,
    )
    block = self._block(conv)
    x = self._stem(image, conv, train)
    features = {"c1": x}
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

  def _stem(
    self, x: jax.Array, conv: Callable[..., Any], train: bool
  ) -> jax.Array:
    """Applies the layers before pooling."""
    if self.stem not in STEMS:
      raise unknown_name("model.backbone.stem", self.stem, STEMS)
    if self.stem == "deep":
      x = conv(self.width, strides=2, name="stem1")(x, train=train)
      x = conv(self.width, name="stem2")(x, train=train)
      return conv(2 * self.width, name="stem3")(x, train=train)
    return conv(self.width, 7, strides=2, name="stem")(x, train=train)

  def _block(self, conv: Callable[..., Any]) -> Callable[..., nn.Module]:
    """Returns a factory of the stages' blocks."""
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
    """Returns the dilations at and after the stride, in block `b` of stage `s`.

    Stages count from 1, blocks from 0.
    """
    if self.multi_grid and s == len(self.stage_sizes):
      dilation = stage.dilation * self.multi_grid[b % len(self.multi_grid)]
      return dilation, dilation
    if b == 0 and self.contract_dilation:
      return stage.previous, stage.dilation
    return stage.dilation, stage.dilation


_basic = functools.partial(ResNet, block=BasicBlock)
_bottleneck = functools.partial(ResNet, block=Bottleneck)
_resnet50 = functools.partial(_bottleneck, stage_sizes=(3, 4, 6, 3))
_resnet101 = functools.partial(_bottleneck, stage_sizes=(3, 4, 23, 3))
_resnet152 = functools.partial(_bottleneck, stage_sizes=(3, 8, 36, 3))
_32x4d = {"groups": 32, "width_per_group": 4}
_32x8d = {"groups": 32, "width_per_group": 8}
RESNETS = {
  "resnet18": functools.partial(_basic, stage_sizes=(2, 2, 2, 2)),
  "resnet34": functools.partial(_basic, stage_sizes=(3, 4, 6, 3)),
  "resnet50": _resnet50,
  "resnet101": _resnet101,
  "resnet152": _resnet152,
  "resnext50_32x4d": functools.partial(_resnet50, **_32x4d),
  "resnext101_32x8d": functools.partial(_resnet101, **_32x8d),
  "se_resnet50": functools.partial(_resnet50, squeeze_excite=True),
  "se_resnet101": functools.partial(_resnet101, squeeze_excite=True),
  "se_resnet152": functools.partial(_resnet152, squeeze_excite=True),
  "se_resnext50_32x4d": functools.partial(
    _resnet50, **_32x4d, squeeze_excite=True
  ),
}
