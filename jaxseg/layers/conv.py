"""Convolutions as the field writes them: symmetric padding, norm, activation.

`padding=None` is PyTorch's and Caffe's symmetric dilation * (k - 1) / 2 on
each side. XLA's "SAME" differs from it by one pixel at stride 2 on even
sizes, so "SAME" appears nowhere in jaxseg unless a paper means TensorFlow's.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.layers.norm import BatchNorm
from jaxseg.types import Activation

# He et al. 2015 (arXiv:1502.01852, Eq. 10 and 14): the two choices of fan.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def symmetric_padding(kernel_size: int, dilation: int = 1):
  """Pads an odd kernel so that stride 1 keeps the size: ((p, p), (p, p))."""
  pad = dilation * (kernel_size - 1) // 2
  return ((pad, pad), (pad, pad))


class Conv(nn.Module):
  """A 2-D convolution `[n, h, w, c] -> [n, h', w', features]`.

  Attributes:
    features: output channels.
    kernel_size: side of the square kernel.
    padding: None for symmetric, or what `lax.conv` takes.
    groups: channel groups; `groups == c` is a depthwise convolution.
  """

  features: int
  kernel_size: int = 3
  strides: int = 1
  dilation: int = 1
  padding: Any = None
  groups: int = 1
  use_bias: bool = True
  kernel_init: Callable[..., Any] = kaiming_fan_out
  bias_init: Callable[..., Any] = nn.initializers.zeros_init()
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    k, d = self.kernel_size, self.dilation
    pad = symmetric_padding(k, d) if self.padding is None else self.padding
    in_features = x.shape[-1]
    shape = (k, k, in_features // self.groups, self.features)
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    bias = None
    if self.use_bias:
      bias = self.param(
        "bias", self.bias_init, (self.features,), self.param_dtype
      )
    x, kernel, bias = nn.dtypes.promote_dtype(
      x, kernel, bias, dtype=self.dtype
    )
    y = jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(self.strides, self.strides),
      padding=pad,
      rhs_dilation=(d, d),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=self.groups,
    )
    return y if bias is None else y + bias


class ConvNormAct(nn.Module):
  """Convolution, normalisation, activation: the brick of most networks.

  Attributes:
    use_bias: None means a bias only where there is no norm.
    norm: factory of a normalisation, or None.
    act: activation, or None.
  """

  features: int
  kernel_size: int = 3
  strides: int = 1
  dilation: int = 1
  padding: Any = None
  groups: int = 1
  use_bias: bool | None = None
  norm: Callable[..., Any] | None = BatchNorm
  act: Activation | None = nn.relu
  kernel_init: Callable[..., Any] = kaiming_fan_out
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    use_bias = self.norm is None if self.use_bias is None else self.use_bias
    x = Conv(
      self.features,
      self.kernel_size,
      strides=self.strides,
      dilation=self.dilation,
      padding=self.padding,
      groups=self.groups,
      use_bias=use_bias,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="conv",
    )(x)
    if self.norm is not None:
      x = self.norm(
        dtype=self.dtype, param_dtype=self.param_dtype, name="norm"
      )(x, train=train)
    return x if self.act is None else self.act(x)
