"""Convolutions as the field writes them: symmetric padding, norm, activation.

`padding=None` is PyTorch's and Caffe's symmetric dilation * (k - 1) / 2 on
each side. XLA's "SAME" differs from it by one pixel at stride 2 on even
sizes, so "SAME" appears nowhere in jaxseg unless a paper means TensorFlow's.

XLA runs depthwise convolutions on CPU some 50 times, and the gradient of
grouped ones some 100 times, slower than need be. There a depthwise
convolution is a sum of shifted products, and a grouped one a product of
matrices; elsewhere both are XLA's own.
"""

from collections.abc import Callable
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxseg.layers.norm import BatchNorm
from jaxseg.types import Activation

# He et al. 2015 (arXiv:1502.01852, Eq. 10 and 14): the two choices of fan.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

# PyTorch's default, uniform within 1 / sqrt(fan_in) (nn.Conv2d, nn.Linear).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_uniform_bias(fan_in: int):
  """PyTorch's default bias, drawn from the same interval as the weights."""

  def init(key, shape, dtype=jnp.float32):
    limit = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)

  return init


def symmetric_padding(kernel_size: int, dilation: int = 1):
  """Pads an odd kernel so that stride 1 keeps the size: ((p, p), (p, p))."""
  pad = dilation * (kernel_size - 1) // 2
  return ((pad, pad), (pad, pad))


def convolve(
  x: Float[Array, "n h w c"],
  kernel: Float[Array, "k k i f"],
  *,
  strides: int = 1,
  dilation: int = 1,
  padding: Any = None,
  groups: int = 1,
) -> Float[Array, "n ho wo f"]:
  """Convolves in the formulation that suits the platform.

  Args:
    x: input, `c = groups * i`.
    kernel: square; feature j belongs to group `j // (f / groups)`.
    strides: of the output grid.
    dilation: spacing of the taps.
    padding: None for symmetric, or what `lax.conv` takes.
    groups: channel groups.
  """
  if padding is None:
    padding = symmetric_padding(kernel.shape[0], dilation)
  if groups > 1 and jax.default_backend() == "cpu":
    taps = _taps(x, kernel.shape[0], strides, dilation, padding)
    depthwise = groups == x.shape[-1] == kernel.shape[-1]
    return _shifted_sum(taps, kernel) if depthwise else _grouped(taps, kernel)
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(strides, strides),
    padding=padding,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


def _taps(x, k: int, strides: int, dilation: int, padding) -> list[jax.Array]:
  """What each of the `k * k` taps sees: arrays `[n, ho, wo, c]`."""
  span = dilation * (k - 1) + 1
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(
      x.shape[1:3], (span, span), (strides, strides), padding
    )
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  n, h, w, c = x.shape
  rows = (h - span) // strides * strides + 1
  columns = (w - span) // strides * strides + 1
  return [
    jax.lax.slice(
      x,
      (0, i * dilation, j * dilation, 0),
      (n, i * dilation + rows, j * dilation + columns, c),
      (1, strides, strides, 1),
    )
    for i, j in itertools.product(range(k), range(k))
  ]


def _shifted_sum(taps, kernel):
  """A depthwise convolution, one tap after the other, added in float32."""
  wide = jnp.promote_types(kernel.dtype, jnp.float32)
  weights = kernel.reshape(len(taps), -1).astype(wide)
  total = sum(tap * weights[t] for t, tap in enumerate(taps))
  return total.astype(kernel.dtype)


def _grouped(taps, kernel):
  """A grouped convolution, as one matrix product for each group."""
  n, h, w, c = taps[0].shape
  k, _, i, features = kernel.shape
  groups = c // i
  seen = jnp.stack([tap.reshape(n, h, w, groups, i) for tap in taps], axis=-2)
  y = jnp.einsum(
    "nhwgti,tigf->nhwgf",
    seen,
    kernel.reshape(k * k, i, groups, features // groups),
  )
  return y.reshape(n, h, w, features)


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
    k = self.kernel_size
    shape = (k, k, x.shape[-1] // self.groups, self.features)
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    bias = None
    if self.use_bias:
      bias = self.param(
        "bias", self.bias_init, (self.features,), self.param_dtype
      )
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = convolve(
      x,
      kernel,
      strides=self.strides,
      dilation=self.dilation,
      padding=self.padding,
      groups=self.groups,
    )
    return y if bias is None else y + bias


class ConvNormAct(nn.Module):
  """Convolution, normalisation, activation: the brick of most networks.

  Attributes:
    use_bias: None means a bias only where there is no norm.
    conv: `Conv`, or what takes its place, such as `DeformableConv`.
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
  conv: Callable[..., Any] = Conv
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    use_bias = self.norm is None if self.use_bias is None else self.use_bias
    padding = {} if self.padding is None else {"padding": self.padding}
    x = self.conv(
      self.features,
      self.kernel_size,
      strides=self.strides,
      dilation=self.dilation,
      **padding,
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
