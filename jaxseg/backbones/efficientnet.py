"""EfficientNet (Tan & Le 2019, arXiv:1905.11946, Table 1).

The idea (Sec. 3.3): depth, width and resolution are scaled together, starting
from a small network, B0, that was found by architecture search. Its block is
MobileNetV2's inverted residual with squeeze-and-excitation and SiLU. Numbers
are torchvision's (models/efficientnet.py): symmetric padding; batch norm with
epsilon 1e-5 and momentum 0.1 (PyTorch's convention) for B0-B4, 1e-3 and 0.01
for B5-B7. TensorFlow's networks have `padding="SAME"` and an epsilon of 1e-3
throughout. Levels, by nominal stride:

| level | tensor                                     | stride |
|-------|--------------------------------------------|--------|
| c1    | stage 1 (16 features in B0)                | 2      |
| c2    | stage 2 (24)                               | 4      |
| c3    | stage 3 (40)                               | 8      |
| c4    | stage 5 (112)                              | 16     |
| c5    | stage 7 (320), without final activation    | 32     |

The 1x1 convolution to four times the features of c5 before the classifier is
part of the classification head (`models/classifier.py`).
"""

from collections.abc import Callable
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.strides import dilate
from jaxseg.backbones.widths import round_width
from jaxseg.layers.conv import ConvNormAct
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.squeeze_excite import SqueezeExcite
from jaxseg.types import Activation, Features, Images

# Table 1, stages of B0: expansion, kernel size, stride, features, repeats.
STAGES = (
  (1, 3, 1, 16, 1),
  (6, 3, 2, 24, 2),
  (6, 5, 2, 40, 2),
  (6, 3, 2, 80, 3),
  (6, 5, 1, 112, 3),
  (6, 5, 2, 192, 4),
  (6, 3, 1, 320, 1),
)


class MBConv(nn.Module):
  """1x1 expansion, depthwise, squeeze-and-excitation, 1x1 projection.

  Attributes:
    features: Output features.
    expansion: Width of the depthwise convolution, as a multiple of the input's.
    kernel_size: Kernel size of the depthwise convolution.
    strides: Stride of the depthwise convolution.
    dilation: Dilation of the depthwise convolution.
    drop_rate: Probability that training skips the block for an example
      (stochastic depth).
    residual: Whether the input is added.
    conv: Factory of `ConvNormAct`.
    squeeze_excite: Factory of `SqueezeExcite`.
  """

  features: int
  expansion: int
  kernel_size: int
  strides: int
  dilation: int
  drop_rate: float
  residual: bool
  conv: Callable[..., Any]
  squeeze_excite: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    y = x
    width = round_width(x.shape[-1] * self.expansion)
    if width != x.shape[-1]:
      y = self.conv(width, 1, name="expand")(y, train=train)
    y = self.conv(
      width,
      self.kernel_size,
      strides=self.strides,
      dilation=self.dilation,
      groups=width,
      name="depthwise",
    )(y, train=train)
    # A quarter of the input features, not of the expanded ones.
    y = self.squeeze_excite(max(x.shape[-1] // 4, 1), name="se")(y)
    y = self.conv(self.features, 1, act=None, name="project")(y, train=train)
    if not self.residual:
      return y
    # Stochastic depth (arXiv:1603.09382), drawn once per example.
    y = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2, 3), name="drop")(
      y, deterministic=not train
    )
    return x + y


class EfficientNet(nn.Module):
  """An EfficientNet trunk: image `[n, h, w, 3]` to `{"c1": ..., "c5": ...}`.

  Attributes:
    width_mult: Factor of all widths, rounded to multiples of 8.
    depth_mult: Factor of all repeats, rounded up.
    dropout_rate: Dropout rate of the classification head that belongs to this
      network; `models/classifier.py` reads it.
    stages: Rows of Table 1: expansion, kernel size, stride, features, repeats.
    stochastic_depth: Drop rate of stochastic depth, which grows linearly with
      depth and would be reached one block after the last.
    padding: Padding of the convolutions: None for symmetric (torchvision),
      "SAME" for TensorFlow's.
    output_stride: Stride of c5: 32, 16, 8, 4 or 2; later strides become
      dilations.
    norm: Factory of the normalisation layers. The default has the network's
      epsilon and momentum; any other replaces these, too.
    act: Activation.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  width_mult: float = 1.0
  depth_mult: float = 1.0
  dropout_rate: float = 0.2
  stages: tuple[tuple[int, int, int, int, int], ...] = STAGES
  stochastic_depth: float = 0.2
  padding: str | None = None
  output_stride: int = 32
  norm: Callable[..., Any] = BatchNorm
  act: Activation = nn.silu
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Features:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    conv = functools.partial(
      ConvNormAct, norm=self.norm, act=self.act, padding=self.padding, **types
    )
    squeeze_excite = functools.partial(SqueezeExcite, act=self.act, **types)
    strides = (2, *(stride for _, _, stride, _, _ in self.stages))
    _, *plan = dilate(strides, self.output_stride)
    repeats = [math.ceil(n * self.depth_mult) for *_, n in self.stages]
    width = round_width(32 * self.width_mult)
    x = conv(width, strides=2, name="stem")(image, train=train)
    features, level, done = {}, 1, 0
    for s, (row, stage) in enumerate(
      zip(self.stages, plan, strict=True), start=1
    ):
      expansion, kernel_size, stride, c, _ = row
      level += stride - 1  # A stride of 2 begins the next level.
      width = round_width(c * self.width_mult)
      for b in range(repeats[s - 1]):
        x = MBConv(
          width,
          expansion,
          kernel_size,
          strides=stage.stride if b == 0 else 1,
          dilation=stage.previous if b == 0 else stage.dilation,
          drop_rate=self.stochastic_depth * done / sum(repeats),
          residual=(b > 0 or stride == 1) and x.shape[-1] == width,
          conv=conv,
          squeeze_excite=squeeze_excite,
          name=f"stage{s}_block{b + 1}",
        )(x, train=train)
        done += 1
      # The last stage of a level overwrites earlier ones.
      features[f"c{level}"] = x
    return features


# width_mult, depth_mult, dropout_rate (the authors' efficientnet_builder.py)
# and fields of the norm (torchvision).
_large = {"epsilon": 1e-3, "momentum": 0.99}
_SCALING = {
  "efficientnet_b0": (1.0, 1.0, 0.2, {}),
  "efficientnet_b1": (1.0, 1.1, 0.2, {}),
  "efficientnet_b2": (1.1, 1.2, 0.3, {}),
  "efficientnet_b3": (1.2, 1.4, 0.3, {}),
  "efficientnet_b4": (1.4, 1.8, 0.4, {}),
  "efficientnet_b5": (1.6, 2.2, 0.4, _large),
  "efficientnet_b6": (1.8, 2.6, 0.5, _large),
  "efficientnet_b7": (2.0, 3.1, 0.5, _large),
}
EFFICIENTNETS = {
  name: functools.partial(
    EfficientNet,
    width_mult=width_mult,
    depth_mult=depth_mult,
    dropout_rate=dropout_rate,
    norm=functools.partial(BatchNorm, **norm),
  )
  for name, (width_mult, depth_mult, dropout_rate, norm) in _SCALING.items()
}
