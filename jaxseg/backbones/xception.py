"""Aligned Xception (Chen et al. 2018, arXiv:1802.02611, Fig. 4).

The idea (Chollet 2017, arXiv:1610.02357): a separable convolution, which
filters each channel (depthwise 3x3) and then mixes channels (1x1). DeepLab
v3+ replaces pooling by strided depthwise convolutions, so that every stage can
be dilated. Numbers are those of the authors' code (tensorflow/models,
research/deeplab/core/xception.py):

- Depthwise and pointwise convolution are each followed by batch norm of
  epsilon 1e-3 and decay 0.9997.
- In the entry flow, the middle flow and the first exit block the ReLU is
  *before* each separable convolution, with none inside it (the paper's text
  has one after each depthwise convolution). The last exit block has a ReLU
  after both halves.
- A block is three separable convolutions, the third with the stride.

Levels, by nominal stride. Those of blocks with a stride are the input of the
third, strided convolution: the second convolution's batch norm, before ReLU.
DeepLab v3+'s decoder reads c2.

| level | tensor                     | features | stride |
|-------|----------------------------|----------|--------|
| c1    | entry1, second convolution | 128      | 2      |
| c2    | entry2, second convolution | 256      | 4      |
| c3    | entry3, second convolution | 728      | 8      |
| c4    | exit1, second convolution  | 1024     | 16     |
| c5    | exit2                      | 2048     | 32     |
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
from jaxseg.types import Features, Images


class SeparableConv(nn.Module):
  """A depthwise 3x3 and a 1x1 convolution, each with a norm.

  Attributes:
    features: Output features.
    strides: Stride of the depthwise convolution.
    dilation: Dilation of the depthwise convolution.
    act_inside: Whether a ReLU follows each of the two convolutions, instead of
      one before both.
    conv: Factory of `ConvNormAct`.
  """

  features: int
  strides: int
  dilation: int
  act_inside: bool
  conv: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    act = nn.relu if self.act_inside else None
    if not self.act_inside:
      x = nn.relu(x)
    x = self.conv(
      x.shape[-1],
      3,
      strides=self.strides,
      dilation=self.dilation,
      groups=x.shape[-1],
      act=act,
      name="depthwise",
    )(x, train=train)
    return self.conv(self.features, 1, act=act, name="pointwise")(
      x, train=train
    )


class XceptionBlock(nn.Module):
  """Three separable convolutions and a shortcut (Fig. 4).

  Attributes:
    features: Features of the three convolutions.
    shortcut: Shortcut: "conv" (1x1), "sum" (the input) or "none".
    strides: Stride of the third convolution and of the shortcut.
    dilations: Dilations of the three convolutions.
    conv: Factory of `ConvNormAct`.
    act_inside: Whether ReLUs are inside the separable convolutions, as
      described in `SeparableConv`.
  """

  features: tuple[int, int, int]
  shortcut: str
  strides: int
  dilations: tuple[int, int, int]
  conv: Callable[..., Any]
  act_inside: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the block's output and the input of its third convolution."""
    y = before = x
    for i in range(3):
      before = y
      y = SeparableConv(
        self.features[i],
        strides=self.strides if i == 2 else 1,
        dilation=self.dilations[i],
        act_inside=self.act_inside,
        conv=self.conv,
        name=f"separable{i + 1}",
      )(y, train=train)
    if self.shortcut == "conv":
      y += self.conv(
        self.features[-1], 1, strides=self.strides, act=None, name="shortcut"
      )(x, train=train)
    elif self.shortcut == "sum":
      y += x
    return y, before


class Xception(nn.Module):
  """An Xception trunk: image `[n, h, w, 3]` to `{"c1": ..., "c5": ...}`.

  Attributes:
    middle_blocks: Number of blocks in the middle flow.
    width_div: Divisor of all widths; larger than 1 for small experiments.
    output_stride: Stride of c5: 32, 16, 8, 4 or 2; later strides become
      dilations.
    multi_grid: Factors of the dilations of the last block's convolutions.
    norm: Factory of the normalisation layers. The default has the authors'
      epsilon and decay; any other replaces these.
    kernel_init: Initialiser of the kernels.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  middle_blocks: int
  width_div: int = 1
  output_stride: int = 32
  multi_grid: tuple[int, int, int] = (1, 1, 1)
  norm: Callable[..., Any] = functools.partial(
    BatchNorm, epsilon=1e-3, momentum=0.9997
  )
  kernel_init: Callable[..., Any] = nn.initializers.truncated_normal(0.09)
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Features:
    conv = functools.partial(
      ConvNormAct,
      norm=self.norm,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    _, *entries, last = dilate((2, 2, 2, 2, 2), self.output_stride)

    def block(x, name, features, shortcut, dilations, strides=1, **fields):
      return XceptionBlock(
        tuple(f // self.width_div for f in features),
        shortcut,
        strides,
        dilations,
        conv,
        **fields,
        name=name,
      )(x, train=train)

    x = conv(32 // self.width_div, strides=2, name="stem1")(image, train=train)
    x = conv(64 // self.width_div, name="stem2")(x, train=train)
    features = {}
    for i, width in enumerate((128, 256, 728)):
      stage = entries[i]
      # The third convolution has the stride, so all three keep the previous
      # dilation.
      x, features[f"c{i + 1}"] = block(
        x,
        f"entry{i + 1}",
        (width,) * 3,
        "conv",
        (stage.previous,) * 3,
        stage.stride,
      )
    d = last.previous
    for i in range(self.middle_blocks):
      x, _ = block(x, f"middle{i + 1}", (728,) * 3, "sum", (d,) * 3)
    x, features["c4"] = block(
      x, "exit1", (728, 1024, 1024), "conv", (d,) * 3, last.stride
    )
    dilations = tuple(last.dilation * grid for grid in self.multi_grid)
    features["c5"], _ = block(
      x, "exit2", (1536, 1536, 2048), "none", dilations, act_inside=True
    )
    return features


XCEPTIONS = {
  "xception41": functools.partial(Xception, middle_blocks=8),
  "xception65": functools.partial(Xception, middle_blocks=16),
}
