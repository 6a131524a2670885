"""Transposed convolution ("deconvolution") and its bilinear kernel.

The idea (Dumoulin & Visin 2016, arXiv:1603.07285, Sec. 4): every input pixel
adds the *stamp* `x * kernel` to an output grid that is `strides` times finer.
Along each axis the output has

  o = (i - 1) s - 2 p + d (k - 1) + 1 + output_padding

pixels, as in PyTorch's ConvTranspose2d and Caffe's Deconvolution. Kernels are
stored as the stamp itself, `[k, k, in, out / groups]`, which is PyTorch's `[in,
out / groups, k, k]` without a flip. `flax.linen.ConvTranspose` and
`jax.lax.conv_transpose` store flipped kernels, and their "SAME" crops other
pixels.

If `k` is divisible by `strides`, every output pixel receives the same number of
stamps, which avoids checkerboards (Odena et al. 2016).

On CPU, XLA's operator multiplies the zeros between the input pixels. When
lowered for CPU, a transposed convolution is therefore one convolution for each
phase of the output grid; for every other platform it is XLA's own operator.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from jaxseg.layers.conv import kaiming_fan_in, promoted_with_parameters


def conv_transpose(
  x: Float[Array, "n h w c"],
  kernel: Float[Array, "kh kw c o"],
  *,
  strides: int = 1,
  padding: int = 0,
  output_padding: int | tuple[int, int] = 0,
  dilation: int = 1,
  groups: int = 1,
) -> Float[Array, "n h2 w2 f"]:
  """Adds a stamp of `kernel` for every pixel; equals torch.conv_transpose2d.

  Args:
    x: Input.
    kernel: Stamp of each pair of channels. There are `f = o * groups` output
      channels; group g reads and writes the g-th contiguous block of channels.
    strides: Output pixels between neighbouring stamps.
    padding: Rows and columns cropped on every side.
    output_padding: Rows and columns added at the bottom and right, as one
      number or (rows, columns). A strided convolution maps several input sizes
      to one output size; this argument selects among them.
    dilation: Spacing of the taps of a stamp.
    groups: Number of channel groups.
  """
  if isinstance(output_padding, int):
    output_padding = (output_padding, output_padding)
  if strides == 1 or dilation > 1:
    return _over_zeros(
      x, kernel, strides, padding, output_padding, dilation, groups
    )
  return _by_platform(x, kernel, strides, padding, output_padding, groups)


# Outside of jit, the compiled function is kept for the next call.
@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _by_platform(x, kernel, strides, padding, output_padding, groups):
  """Computes an undilated `conv_transpose` in the platform's formulation."""

  def by_phases(x, kernel):
    return _phases(x, kernel, strides, padding, output_padding, groups)

  def over_zeros(x, kernel):
    return _over_zeros(x, kernel, strides, padding, output_padding, 1, groups)

  return jax.lax.platform_dependent(
    x, kernel, cpu=by_phases, default=over_zeros
  )


def _over_zeros(
  x, kernel, strides: int, padding: int, output_padding, dilation, groups: int
):
  """Convolves `x` with zeros inserted between its pixels."""
  kh, kw, channels, out = kernel.shape
  pads = tuple(
    (dilation * (k - 1) - padding, dilation * (k - 1) - padding + extra)
    for k, extra in zip((kh, kw), output_padding, strict=True)
  )
  # A convolution reads where a stamp writes, so the kernel is flipped. The
  # inputs of group g meet only the outputs of group g.
  kernel = kernel[::-1, ::-1].reshape(kh, kw, groups, channels // groups, out)
  kernel = kernel.transpose(0, 1, 3, 2, 4)
  return jax.lax.conv_general_dilated(
    x,
    kernel.reshape(kh, kw, channels // groups, groups * out),
    window_strides=(1, 1),
    padding=pads,
    lhs_dilation=(strides, strides),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


def _phases(x, kernel, strides: int, padding: int, output_padding, groups: int):
  """Convolves once for each of the `strides ** 2` phases of the output.

  Output pixel `s q + b` sums `x[q - a] kernel[s a + b]` over a. The other
  formulation multiplies `strides ** 2` times as many numbers, nearly all of
  which are zeros.
  """
  s = strides
  kh, kw, channels, out = kernel.shape
  rows, columns = -(-kh // s), -(-kw // s)
  kernel = jnp.pad(
    kernel, ((0, rows * s - kh), (0, columns * s - kw), (0, 0), (0, 0))
  )
  kernel = kernel.reshape(rows, s, columns, s, groups, channels // groups, out)[
    ::-1, :, ::-1
  ]
  kernel = kernel.transpose(0, 2, 5, 4, 1, 3, 6)
  y = jax.lax.conv_general_dilated(
    x,
    kernel.reshape(rows, columns, channels // groups, -1),
    window_strides=(1, 1),
    padding=((rows - 1, rows - 1), (columns - 1, columns - 1)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )
  n, h, w, _ = y.shape
  y = y.reshape(n, h, w, groups, s, s, out).transpose(0, 1, 4, 2, 5, 3, 6)
  y = y.reshape(n, h * s, w * s, groups * out)
  pads = tuple(
    (-padding, (have - 1) * s + k - padding + extra - size)
    for have, k, extra, size in zip(
      x.shape[1:3], (kh, kw), output_padding, y.shape[1:3], strict=True
    )
  )
  zero = jnp.zeros((), y.dtype)
  return jax.lax.pad(
    y, zero, ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0))
  )


class ConvTranspose(nn.Module):
  """Learned `conv_transpose`, `[n, h, w, c] -> [n, h', w', features]`.

  Attributes:
    features: Number of output channels.
    kernel_size: Side of the square stamp.
    strides: Upsampling factor.
    padding: Rows and columns cropped on every side; `(kernel_size - strides) /
      2` gives exactly `strides` times the size.
    output_padding: Rows and columns added at the bottom and right, as one
      number or (rows, columns).
    dilation: Spacing of the taps of a stamp.
    groups: Number of channel groups.
    use_bias: Whether to add a bias.
    kernel_init: Initialiser of the kernel `[k, k, c, features / groups]`, such
      as `bilinear_init`.
    bias_init: Initialiser of the bias.
    dtype: Computation dtype; None follows the input and the parameters.
    param_dtype: Dtype of the parameters.
  """

  features: int
  kernel_size: int
  strides: int = 1
  padding: int = 0
  output_padding: int | tuple[int, int] = 0
  dilation: int = 1
  groups: int = 1
  use_bias: bool = True
  kernel_init: Callable[..., Any] = kaiming_fan_in
  bias_init: Callable[..., Any] = nn.initializers.zeros_init()
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    k = self.kernel_size
    shape = (k, k, x.shape[-1], self.features // self.groups)
    x, kernel, bias = promoted_with_parameters(self, x, shape)
    y = conv_transpose(
      x,
      kernel,
      strides=self.strides,
      padding=self.padding,
      output_padding=self.output_padding,
      dilation=self.dilation,
      groups=self.groups,
    )
    return y if bias is None else y + bias


def bilinear_kernel(size: int) -> np.ndarray:
  """Returns the `[size, size]` stamp that interpolates bilinearly.

  Along each axis the stamp is a triangle of half-width f = floor((size + 1) /
  2) around the centre of the kernel (Caffe's BilinearFiller; FCN's
  surgery.upsample_filt). Upsampling by s needs size `2 s - s % 2` and padding
  `ceil((s - 1) / 2)`.
  """
  factor = (size + 1) // 2
  centre = factor - 1 if size % 2 else factor - 0.5
  line = 1 - np.abs(np.arange(size) - centre) / factor
  return np.outer(line, line)


def bilinear_init(key: jax.Array, shape, dtype=jnp.float32) -> jax.Array:
  """Initialises `[k, k, in, out / groups]` to interpolate each channel.

  With `groups == in` every stamp is bilinear (Caffe's filler). Without groups
  only the stamps of the diagonal are, so that channels do not mix (FCN's
  surgery.interp).

  Raises:
    ValueError: The number of outputs of a group is neither 1 nor `in`.
  """
  del key  # The kernel is not random.
  k, _, channels, out = shape
  if out not in (1, channels):
    raise ValueError(
      f"bilinear_init: a kernel of {channels} channels has {out} outputs in "
      f"each group; expected 1 or {channels}, because a bilinear kernel does "
      "not mix channels"
    )
  mixing = np.eye(channels) if out == channels else np.ones((channels, 1))
  kernel = bilinear_kernel(k)[:, :, None, None] * mixing
  return jnp.asarray(kernel, dtype)


def bilinear_conv_transpose(
  x: Float[Array, "n h w c"], *, kernel_size: int, strides: int
) -> Float[Array, "n h2 w2 c"]:
  """Applies `conv_transpose` with `bilinear_kernel` to each channel, unpadded.

  The bilinear stamp is the product of a column and a row. The result is
  therefore computed as two matrix products, which is much faster than a
  convolution over the zeros between pixels.
  """
  line = np.sqrt(np.diag(bilinear_kernel(kernel_size)))
  rows, columns = (
    jnp.asarray(_stamps(line, size, strides), x.dtype) for size in x.shape[1:3]
  )
  exact = jax.lax.Precision.HIGHEST
  x = jnp.einsum("ih,nhwc->niwc", rows, x, precision=exact)
  return jnp.einsum("jw,niwc->nijc", columns, x, precision=exact)


def _stamps(line: np.ndarray, size: int, strides: int) -> np.ndarray:
  """Returns the `[out, size]` matrix that adds the stamps of one axis."""
  matrix = np.zeros(((size - 1) * strides + len(line), size))
  for i in range(size):
    matrix[i * strides : i * strides + len(line), i] = line
  return matrix
