"""Atrous spatial pyramid pooling of DeepLab v3 and v3+.

The idea (Chen et al. 2017, arXiv:1706.05587, Sec. 3.3 and Fig. 5): view the
same features with several fields of view at once. The branches are a 1x1
convolution, 3x3 convolutions whose taps lie `rate` pixels apart, and the mean
of the whole image, each followed by a norm; a 1x1 convolution mixes them. Rates
are given for output stride 16, where the paper's are (6, 12, 18), and scale
with the resolution: at output stride 8 they are (12, 24, 36).

A separable convolution is a depthwise one followed by a 1x1 one (v3+,
arXiv:1802.02611, Sec. 3.1 and Fig. 3). TensorFlow's DeepLab applies a norm and
a ReLU after both, segmentation_models_pytorch only after the second.

Branches are concatenated in PyTorch's order, with the image's mean last;
TensorFlow puts it first.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.errors import UserError
from jaxseg.layers.conv import ConvNormAct

# Initialisers of the two convolutions in TensorFlow's DeepLab.
DEPTHWISE_INIT = nn.initializers.truncated_normal(0.33)
POINTWISE_INIT = nn.initializers.truncated_normal(0.06)


def scaled_rates(rates: tuple[int, ...], backbone: nn.Module):
  """Scales rates for output stride 16 to the output stride of `backbone`.

  Raises:
    UserError: The backbone has no output stride.
  """
  if not hasattr(backbone, "output_stride"):
    raise UserError(
      f"backbone {type(backbone).__name__} has no output_stride, which an "
      "atrous pyramid needs; choose a backbone that has one, such as resnet50"
    )
  return tuple(max(rate * 16 // backbone.output_stride, 1) for rate in rates)


class SeparableConvNormAct(nn.Module):
  """Separable convolution, a substitute for a 3x3 `ConvNormAct`.

  Attributes:
    features: Number of output channels.
    dilation: Dilation of the depthwise convolution.
    norm_between: Whether a norm and an activation follow the depthwise
      convolution as well.
    conv: Factory of both convolutions, a `ConvNormAct`.
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
  """Atrous spatial pyramid, `[n, h, w, c] -> [n, h, w, features]` (Fig. 5).

  Attributes:
    rates: Dilations of the 3x3 branches.
    features: Number of channels of each branch and of the result.
    dropout_rate: Dropout rate of the result.
    conv: Factory of the 1x1 convolutions, a `ConvNormAct`.
    spatial: Factory of the 3x3 branches: `ConvNormAct` or
      `SeparableConvNormAct`.
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
      # Named by index: rates change with the output stride, weights do not.
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
