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
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.strides import dilate
from jaxseg.layers.conv import ConvNormAct
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import max_pool
from jaxseg.types import Activation, Features, Images


class BasicBlock(nn.Module):
  """Two 3x3 convolutions (Fig. 5 left)."""

  features: int
  strides: int = 1
  dilations: tuple[int, int] = (1, 1)
  conv: Callable[..., Any] = ConvNormAct
  act: Activation = nn.relu

  expansion = 1

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    first, second = self.dilations
    y = self.conv(
      self.features, strides=self.strides, dilation=first, name="conv1"
    )(x, train=train)
    y = self.conv(self.features, dilation=second, act=None, name="conv2")(
      y, train=train
    )
    if x.shape != y.shape:
      x = self.conv(
        self.features, 1, strides=self.strides, act=None, name="project"
      )(x, train=train)
    return self.act(x + y)


class Bottleneck(nn.Module):
  """1x1 down, 3x3, 1x1 up by four (Fig. 5 right); the stride on the 3x3."""

  features: int
  strides: int = 1
  dilations: tuple[int, int] = (1, 1)
  conv: Callable[..., Any] = ConvNormAct
  act: Activation = nn.relu

  expansion = 4

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    out = self.features * self.expansion
    y = self.conv(self.features, 1, name="conv1")(x, train=train)
    y = self.conv(
      self.features,
      strides=self.strides,
      dilation=self.dilations[0],
      name="conv2",
    )(y, train=train)
    y = self.conv(out, 1, act=None, name="conv3")(y, train=train)
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
    stem: "conv7" or "deep".
    output_stride: 32, 16, 8 or 4; later strides become dilations.
    contract_dilation: the first block of a dilated stage keeps the previous
      dilation (torchvision) instead of the stage's own (semseg, Caffe PSPNet).
    multi_grid: factors on the dilation of the last stage's blocks, as
      multiples of the stage's (DeepLab v3, arXiv:1706.05587, Sec. 3.2.1).
  """

  stage_sizes: tuple[int, ...]
  block: type[nn.Module]
  width: int = 64
  stem: str = "conv7"
  output_stride: int = 32
  contract_dilation: bool = True
  multi_grid: tuple[int, ...] = ()
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
    x = max_pool(x, 3, pool.stride, padding=1)
    for s, (size, stage) in enumerate(
      zip(self.stage_sizes, stages, strict=True), start=1
    ):
      for b in range(size):
        first = stage.previous if self.contract_dilation else stage.dilation
        dilations = (first if b == 0 else stage.dilation, stage.dilation)
        if self.multi_grid and s == len(self.stage_sizes):
          grid = self.multi_grid[b % len(self.multi_grid)]
          dilations = (stage.dilation * grid,) * 2
        x = self.block(
          self.width * 2 ** (s - 1),
          strides=stage.stride if b == 0 else 1,
          dilations=dilations,
          conv=conv,
          act=self.act,
          name=f"stage{s}_block{b + 1}",
        )(x, train=train)
      features[f"c{s + 1}"] = x
    return features


RESNETS = {
  "resnet18": functools.partial(ResNet, (2, 2, 2, 2), BasicBlock),
  "resnet34": functools.partial(ResNet, (3, 4, 6, 3), BasicBlock),
  "resnet50": functools.partial(ResNet, (3, 4, 6, 3), Bottleneck),
  "resnet101": functools.partial(ResNet, (3, 4, 23, 3), Bottleneck),
  "resnet152": functools.partial(ResNet, (3, 8, 36, 3), Bottleneck),
}
