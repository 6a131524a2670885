"""Convolutions as networks use them: symmetric padding, norm, activation.

`padding=None` means the symmetric padding of PyTorch and Caffe, dilation * (k -
1) / 2 on each side. XLA's "SAME" differs from it by one pixel at stride 2 on
even sizes, so jaxseg uses "SAME" for TensorFlow's networks only.

On CPU, XLA's depthwise convolution is about 50 times slower than necessary, and
the gradient of its grouped convolution about 100 times. When lowered for CPU, a
depthwise convolution is therefore a sum of shifted products and a grouped one a
product of matrices; for every other platform both are XLA's own operator.
"""

from collections.abc import Callable
import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxseg.layers.norm import BatchNorm
from jaxseg.types import Activation

# Initialisers of He et al. 2015 (arXiv:1502.01852): fan-out is their Eq. 14,
# fan-in their Eq. 10.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

# PyTorch's default initialiser of nn.Conv2d and nn.Linear, uniform within
# +-1 / sqrt(fan_in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_uniform_bias(fan_in: int):
  """Returns PyTorch's default bias initialiser: the interval of the weights."""

  def init(key, shape, dtype=jnp.float32):
    limit = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)

  return init


def symmetric_padding(kernel_size: int, dilation: int = 1):
  """Returns the padding ((p, p), (p, p)) that keeps the size at stride 1."""
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
    x: Input, with `c = groups * i` channels.
    kernel: Square kernel; feature j belongs to group `j // (f / groups)`.
    strides: Spacing of the output pixels, in input pixels.
    dilation: Spacing of the taps.
    padding: Padding as `lax.conv_general_dilated` takes it, or None for
      symmetric padding.
    groups: Number of channel groups.
  """
  if padding is None:
    padding = symmetric_padding(kernel.shape[0], dilation)
  if not isinstance(padding, str):
    padding = tuple(map(tuple, padding))
  settings = (strides, dilation, padding, groups)
  if groups == 1:
    return _by_primitive(x, kernel, *settings)
  return _by_platform(x, kernel, *settings)


# Outside of jit, the compiled function is kept for the next call.
@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _by_platform(x, kernel, strides: int, dilation: int, padding, groups: int):
  """Computes a grouped convolution in the formulation for the platform."""

  def by_taps(x, kernel):
    taps = _taps(x, kernel.shape[0], strides, dilation, padding)
    depthwise = groups == x.shape[-1] == kernel.shape[-1]
    return _shifted_sum(taps, kernel) if depthwise else _grouped(taps, kernel)

  def by_primitive(x, kernel):
    return _by_primitive(x, kernel, strides, dilation, padding, groups)

  return jax.lax.platform_dependent(
    x, kernel, cpu=by_taps, default=by_primitive
  )


def _by_primitive(x, kernel, strides: int, dilation: int, padding, groups: int):
  """Convolves by XLA's own operator."""
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
  """Returns the input of each of the `k * k` taps, as `[n, ho, wo, c]`."""
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
  """Computes a depthwise convolution tap by tap, accumulated in float32."""
  wide = jnp.promote_types(kernel.dtype, jnp.float32)
  weights = kernel.reshape(len(taps), -1).astype(wide)
  total = sum(tap * weights[t] for t, tap in enumerate(taps))
  return total.astype(kernel.dtype)


def _grouped(taps, kernel):
  """Computes a grouped convolution as one matrix product for each group."""
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


def promoted_with_parameters(
  layer: nn.Module, x: jax.Array, shape: tuple[int, int, int, int]
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
  """Creates the parameters of a convolution, and promotes dtypes.

  Args:
    layer: `Conv`, `ConvTranspose` or `DeformableConv`, inside its `__call__`.
    x: Input of the layer.
    shape: Shape of the kernel.

  Returns:
    The input, the kernel and the bias in the computation dtype. The bias is
    None without `use_bias`.
  """
  kernel = layer.param("kernel", layer.kernel_init, shape, layer.param_dtype)
  bias = None
  if layer.use_bias:
    bias = layer.param(
      "bias", layer.bias_init, (layer.features,), layer.param_dtype
    )
  return tuple(nn.dtypes.promote_dtype(x, kernel, bias, dtype=layer.dtype))


class Conv(nn.Module):
  """2-D convolution `[n, h, w, c] -> [n, h', w', features]`.

  Attributes:
    features: Number of output channels.
    kernel_size: Side of the square kernel.
    strides: Spacing of the output pixels, in input pixels.
    dilation: Spacing of the taps.
    padding: Padding as `lax.conv_general_dilated` takes it, or None for
      symmetric padding.
    groups: Number of channel groups; `groups == c` is a depthwise convolution.
    use_bias: Whether to add a bias.
    kernel_init: Initialiser of the kernel `[k, k, c / groups, features]`.
    bias_init: Initialiser of the bias.
    dtype: Computation dtype; None follows the input and the parameters.
    param_dtype: Dtype of the parameters.
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
    x, kernel, bias = promoted_with_parameters(self, x, shape)
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
  """Convolution, normalisation and activation, in this order.

  Attributes:
    features: Number of output channels.
    kernel_size: Side of the square kernel.
    strides: Spacing of the output pixels, in input pixels.
    dilation: Spacing of the taps.
    padding: Padding of the convolution; None is its default.
    groups: Number of channel groups.
    use_bias: Whether to add a bias; None adds one only if there is no norm.
    norm: Factory of the normalisation; None omits it.
    act: Activation; None omits it.
    kernel_init: Initialiser of the kernel.
    conv: Factory of the convolution: `Conv` or a substitute such as
      `DeformableConv`.
    dtype: Computation dtype.
    param_dtype: Dtype of the parameters.
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
