"""Transposed convolution ("deconvolution"), and the bilinear kernel for it.

The idea (Dumoulin & Visin 2016, arXiv:1603.07285, Sec. 4): every input pixel
stamps `x * kernel` onto an output grid `strides` times finer, and stamps add
where they overlap. Along each axis

  o = (i - 1) s - 2 p + d (k - 1) + 1 + output_padding,

PyTorch's ConvTranspose2d and Caffe's Deconvolution. A kernel is stored as the
stamp itself, `[k, k, in, out / groups]`, which is PyTorch's `[in, out /
groups, k, k]` without a flip; `flax.linen.ConvTranspose` and
`jax.lax.conv_transpose` read theirs flipped, and their "SAME" crops other
pixels.

`k` divisible by `strides` avoids checkerboards (Odena et al. 2016): every
output pixel then receives the same number of stamps.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from jaxseg.layers.conv import kaiming_fan_in

PaddingPair = tuple[tuple[int, int], tuple[int, int]]


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
  """Stamps `kernel` for every pixel of `x`; torch.conv_transpose2d.

  Args:
    x: input.
    kernel: the stamp of each pair of channels; `f = o * groups`, and group g
      reads and writes the g-th contiguous block of channels.
    strides: output pixels between neighbouring stamps.
    padding: rows and columns cut off on every side.
    output_padding: rows and columns added at the bottom and right, also
      `(rows, columns)`; they choose among the sizes a strided convolution
      maps onto the input's.
    dilation: spacing of the stamp's own taps.
    groups: channel groups.
  """
  if isinstance(output_padding, int):
    output_padding = (output_padding, output_padding)
  if strides > 1 and dilation == 1 and jax.default_backend() == "cpu":
    return _phases(x, kernel, strides, padding, output_padding, groups)
  return _over_zeros(
    x, kernel, strides, padding, output_padding, dilation, groups
  )


def _over_zeros(
  x, kernel, strides: int, padding: int, output_padding, dilation, groups: int
):
  """As a convolution of `x` with zeros between its pixels."""
  kh, kw, channels, out = kernel.shape
  pads = tuple(
    (dilation * (k - 1) - padding, dilation * (k - 1) - padding + extra)
    for k, extra in zip((kh, kw), output_padding, strict=True)
  )
  # A convolution reads where a stamp writes: flip, and let group g's inputs
  # meet only group g's outputs.
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
  """As one convolution for each of the `strides ** 2` phases of the output.

  On CPU, XLA multiplies the zeros of the other formulation, all but one in
  `strides ** 2`. Output pixel `s q + b` sums `x[q - a] kernel[s a + b]`.
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
  """A learned `conv_transpose`, `[n, h, w, c] -> [n, h', w', features]`.

  Attributes:
    features: output channels.
    kernel_size: side of the square stamp.
    strides: upsampling factor.
    padding: cut off on every side; `(kernel_size - strides) / 2` gives
      exactly `strides` times the size.
    output_padding: added at the bottom and right; also `(rows, columns)`.
    groups: channel groups; the kernel is `[k, k, c, features / groups]`.
    kernel_init: e.g. `bilinear_init`.
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
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    bias = None
    if self.use_bias:
      bias = self.param(
        "bias", self.bias_init, (self.features,), self.param_dtype
      )
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
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
  """The `[size, size]` stamp that interpolates bilinearly.

  A triangle of half-width f = floor((size + 1) / 2) around the kernel's
  centre, in each axis (Caffe's BilinearFiller; FCN's surgery.upsample_filt).
  Upsampling by s takes size `2 s - s % 2` and padding `ceil((s - 1) / 2)`.
  """
  factor = (size + 1) // 2
  centre = factor - 1 if size % 2 else factor - 0.5
  line = 1 - np.abs(np.arange(size) - centre) / factor
  return np.outer(line, line)


def bilinear_init(key: jax.Array, shape, dtype=jnp.float32) -> jax.Array:
  """Initialises `[k, k, in, out / groups]` to interpolate each channel.

  With `groups == in` every stamp is bilinear (Caffe's filler); without
  groups only the diagonal is, and no channel leaks into another (FCN's
  surgery.interp).
  """
  del key  # Nothing is drawn.
  k, _, channels, out = shape
  if out not in (1, channels):
    raise ValueError(
      f"a bilinear kernel of {channels} channels keeps them: expected 1 or "
      f"{channels} outputs a group, got {out}"
    )
  mixing = np.eye(channels) if out == channels else np.ones((channels, 1))
  kernel = bilinear_kernel(k)[:, :, None, None] * mixing
  return jnp.asarray(kernel, dtype)


def bilinear_conv_transpose(
  x: Float[Array, "n h w c"], *, kernel_size: int, strides: int
) -> Float[Array, "n h2 w2 c"]:
  """`conv_transpose` of each channel by `bilinear_kernel`, unpadded.

  Such stamps are products of a column and a row, so they are laid down as
  two matrix products, quicker by far than a convolution over the zeros
  between pixels.
  """
  line = np.sqrt(np.diag(bilinear_kernel(kernel_size)))
  rows, columns = (
    jnp.asarray(_stamps(line, size, strides), x.dtype) for size in x.shape[1:3]
  )
  exact = jax.lax.Precision.HIGHEST
  x = jnp.einsum("ih,nhwc->niwc", rows, x, precision=exact)
  return jnp.einsum("jw,niwc->nijc", columns, x, precision=exact)


def _stamps(line: np.ndarray, size: int, strides: int) -> np.ndarray:
  """The `[out, size]` matrix of one axis."""
  matrix = np.zeros(((size - 1) * strides + len(line), size))
  for i in range(size):
    matrix[i * strides : i * strides + len(line), i] = line
  return matrix
