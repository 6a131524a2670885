"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, Table 2).

The idea (Fig. 3): the inverted residual. A 1x1 convolution expands a narrow
tensor six times, a depthwise convolution filters it, and a 1x1 convolution
*without* an activation projects it to a narrow one. Shortcuts connect the
narrow tensors. Numbers and initialiser are torchvision's
(models/mobilenetv2.py). Levels, by nominal stride:

| level | tensor                                  | stride |
|-------|-----------------------------------------|--------|
| c1    | stage 1 (16 features)                   | 2      |
| c2    | stage 2 (24)                            | 4      |
| c3    | stage 3 (32)                            | 8      |
| c4    | stage 5 (96)                            | 16     |
| c5    | stage 7 (320), without final activation | 32     |

The 1x1 convolution to 1280 features before the classifier is part of the
classification head (`models/classifier.py`); DeepLab's networks read the 320
features before it.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.strides import dilate
from jaxseg.backbones.widths import round_width
from jaxseg.layers.conv import ConvNormAct
from jaxseg.layers.norm import BatchNorm
from jaxseg.types import Activation, Features, Images

# Table 2: expansion t, features c, repeats n, stride s.
STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
  """1x1 expansion, depthwise 3x3, 1x1 projection without activation (Fig. 3b).

  Attributes:
    features: Output features.
    expansion: Width of the depthwise convolution, as a multiple of the input's.
    strides: Stride of the depthwise convolution.
    dilation: Dilation of the depthwise convolution.
    residual: Whether the input is added.
    conv: Factory of `ConvNormAct`.
  """

  features: int
  expansion: int
  strides: int
  dilation: int
  residual: bool
  conv: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    y, width = x, x.shape[-1] * self.expansion
    if self.expansion != 1:
      y = self.conv(width, 1, name="expand")(y, train=train)
    y = self.conv(
      width,
      3,
      strides=self.strides,
      dilation=self.dilation,
      groups=width,
      name="depthwise",
    )(y, train=train)
    y = self.conv(self.features, 1, act=None, name="project")(y, train=train)
    return x + y if self.residual else y


class MobileNetV2(nn.Module):
  """A MobileNetV2 trunk: image `[n, h, w, 3]` to `{"c1": ..., "c5": ...}`.

  Attributes:
    stages: Rows of Table 2: expansion t, features c, repeats n and stride s.
    stem_features: Features of the first convolution.
    width_mult: Factor of all widths, rounded to multiples of 8.
    output_stride: Stride of c5: 32, 16, 8, 4 or 2; later strides become
      dilations.
    norm: Factory of the normalisation layers.
    act: Activation.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  stages: tuple[tuple[int, int, int, int], ...] = STAGES
  stem_features: int = 32
  width_mult: float = 1.0
  output_stride: int = 32
  norm: Callable[..., Any] = BatchNorm
  act: Activation = nn.relu6
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
    strides = (2, *(s for *_, s in self.stages))
    _, *plan = dilate(strides, self.output_stride)
    width = round_width(self.stem_features * self.width_mult)
    x = conv(width, strides=2, name="stem")(image, train=train)
    features, level = {}, 1
    for s, ((expansion, c, size, stride), stage) in enumerate(
      zip(self.stages, plan, strict=True), start=1
    ):
      level += stride - 1  # A stride of 2 begins the next level.
      for b in range(size):
        width = round_width(c * self.width_mult)
        x = InvertedResidual(
          width,
          expansion,
          strides=stage.stride if b == 0 else 1,
          dilation=stage.previous if b == 0 else stage.dilation,
          residual=(b > 0 or stride == 1) and x.shape[-1] == width,
          conv=conv,
          name=f"stage{s}_block{b + 1}",
        )(x, train=train)
      # The last stage of a level overwrites earlier ones.
      features[f"c{level}"] = x
    return features


MOBILENETS = {"mobilenet_v2": functools.partial(MobileNetV2)}
