"""Atrous spatial pyramid pooling, as DeepLab v3 and v3+ have it.

The idea (Chen et al. 2017, arXiv:1706.05587, Sec. 3.3 and Fig. 5): look at the
same features with several fields of view at once: a 1x1 convolution, 3x3
convolutions whose taps lie `rate` pixels apart, and the mean of the whole
image, each with its norm; a 1x1 convolution mixes them. Rates are given for
output stride 16, where (6, 12, 18) is the paper's, and grow with the
resolution: at 8 they are (12, 24, 36).

A separable convolution is a depthwise and a 1x1 one (v3+, arXiv:1802.02611,
Sec. 3.1 and Fig. 3). TensorFlow's DeepLab has a norm and a ReLU after each of
the two, segmentation_models_pytorch after the second alone.

Branches are concatenated in PyTorch's order, the image's mean last; in
TensorFlow it comes first.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.errors import UserError
from jaxseg.layers.conv import ConvNormAct

# TensorFlow DeepLab's initialisers of the two halves.
DEPTHWISE_INIT = nn.initializers.truncated_normal(0.33)
POINTWISE_INIT = nn.initializers.truncated_normal(0.06)


def scaled_rates(rates: tuple[int, ...], backbone: nn.Module):
  """Rates for output stride 16, at the output stride of `backbone`.

  Raises:
    UserError: a backbone without an output stride.
  """
  if not hasattr(backbone, "output_stride"):
    raise UserError(
      f"backbone {type(backbone).__name__}: it has no output_stride, which an "
      "atrous pyramid needs; choose one that has, such as resnet50"
    )
  return tuple(max(rate * 16 // backbone.output_stride, 1) for rate in rates)


class SeparableConvNormAct(nn.Module):
  """Depthwise 3x3, then 1x1; takes the place of a 3x3 `ConvNormAct`.

  Attributes:
    norm_between: a norm and a ReLU after the depthwise part too.
    conv: a factory of `ConvNormAct`.
  """

  features: int
  dilation: int = 1
  norm_between: bool = True
  conv: Callable[..., Any] = ConvNormAct

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    bare = {} if self.norm_between else {"norm": None, "act": None}
    x = self.conv(
      x.shape[-1],
      3,
      dilation=self.dilation,
      groups=x.shape[-1],
      use_bias=False,
      kernel_init=DEPTHWISE_INIT,
      name="depthwise",
      **bare,
    )(x, train=train)
    return self.conv(
      self.features, 1, kernel_init=POINTWISE_INIT, name="pointwise"
    )(x, train=train)


class AtrousSpatialPyramid(nn.Module):
  """`[n, h, w, c]` -> `[n, h, w, features]` (Fig. 5).

  Attributes:
    rates: dilations of the 3x3 branches.
    features: of each branch, and of the result.
    dropout_rate: of the result.
    conv: a factory of `ConvNormAct`.
    spatial: what the 3x3 branches are made of.
  """

  rates: tuple[int, ...]
  features: int
  dropout_rate: float
  conv: Callable[..., Any] = ConvNormAct
  spatial: Callable[..., Any] = ConvNormAct

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    branches = [self.conv(self.features, 1, name="conv1x1")(x, train=train)]
    for i, rate in enumerate(self.rates, start=1):
      # Named by place: a rate changes with the output stride, weights do not.
      branches.append(
        self.spatial(self.features, dilation=rate, name=f"atrous{i}")(
          x, train=train
        )
      )
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    mean = self.conv(self.features, 1, name="image")(mean, train=train)
    branches.append(jnp.broadcast_to(mean, branches[0].shape))
    x = jnp.concatenate(branches, axis=-1)
    x = self.conv(self.features, 1, name="project")(x, train=train)
    return nn.Dropout(self.dropout_rate, name="dropout")(
      x, deterministic=not train
    )
