"""Pooling with the padding and rounding of PyTorch and Caffe.

- `ceil_mode` keeps the last, partial window unless it would start inside the
  right-hand padding (PyTorch's and Caffe's rule alike).
- `adaptive_avg_pool` has PyTorch's overlapping bins: bin i of n over size h
  averages rows floor(i h / n) .. ceil((i + 1) h / n).
- Unpooling: `max_unpool` by indices, `transpose_pool` by transposition.
"""

from collections.abc import Callable
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped
import numpy as np


def pooled_size(
  size: int, window: int, stride: int, pad: int = 0, ceil_mode: bool = False
) -> int:
  """Length of a pooled axis."""
  span = size + 2 * pad - window
  if not ceil_mode:
    return span // stride + 1
  out = -(-span // stride) + 1
  # The last window must start inside the input or its left padding.
  return out - 1 if (out - 1) * stride >= size + pad else out


def pool_padding(
  size: int, window: int, stride: int, pad: int, ceil_mode: bool
) -> tuple[int, int]:
  """(before, after) padding that gives `pooled_size` with floor division."""
  out = pooled_size(size, window, stride, pad, ceil_mode)
  return pad, max((out - 1) * stride + window - size - pad, 0)


def max_pool(
  x: jax.Array,
  window: int,
  stride: int | None = None,
  *,
  padding: int = 0,
  ceil_mode: bool = False,
) -> jax.Array:
  """Max pooling `[n, h, w, c]`; padding counts as -inf.

  Of equal maxima the first in reading order has the gradient.
  """
  stride = window if stride is None else stride
  pads = tuple(
    pool_padding(size, window, stride, padding, ceil_mode)
    for size in x.shape[1:3]
  )
  return _max_pool(x, window, stride, pads)


@functools.partial(jax.jit, static_argnames=("window", "stride", "pads"))
def _max_pool(x, window: int, stride: int, pads):
  def by_window(x):
    return nn.max_pool(x, (window, window), (stride, stride), pads)

  def by_shifts(x):
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    return _sliding_max(_sliding_max(x, 2, window, stride), 1, window, stride)

  return jax.lax.platform_dependent(x, cpu=by_shifts, default=by_window)


def _sliding_max(x: jax.Array, axis: int, window: int, stride: int):
  """Maxima along one axis, by comparing shifted copies.

  The same numbers as XLA's window, whose gradient is 3 to 10 times slower on
  CPU. A maximum stands until a larger one is seen.
  """
  reach = (x.shape[axis] - window) // stride * stride + 1
  best, *others = (
    jax.lax.slice_in_dim(x, i, i + reach, stride, axis) for i in range(window)
  )
  for seen in others:
    best = jnp.where((seen > best) | jnp.isnan(seen), seen, best)
  return best


def dilated_max_pool(
  x: Float[Array, "n h w c"],
  window: int,
  dilation: int,
  pads: tuple[int, int],
) -> Float[Array, "n ho wo c"]:
  """Max pooling at stride 1 over taps `dilation` apart.

  Rows, then columns, by comparing shifted copies: XLA has no gradient for a
  dilated window.

  Args:
    x: input.
    window: taps along each axis.
    dilation: spacing of the taps.
    pads: rows and columns of -inf (before, after).
  """
  for axis in (1, 2):
    widths = [(0, 0)] * 4
    widths[axis] = pads
    x = jnp.pad(x, widths, constant_values=-jnp.inf)
    out = x.shape[axis] - dilation * (window - 1)
    starts = range(0, dilation * window, dilation)
    x = functools.reduce(
      jnp.maximum,
      (jax.lax.slice_in_dim(x, i, i + out, axis=axis) for i in starts),
    )
  return x


def avg_pool(
  x: Float[Array, "n h w c"],
  window: int,
  stride: int | None = None,
  *,
  padding: int = 0,
) -> Float[Array, "n ho wo c"]:
  """Average pooling; padding counts as zeros, partial windows are dropped."""
  stride = window if stride is None else stride
  pads = ((padding, padding),) * 2
  return nn.avg_pool(x, (window, window), (stride, stride), pads)


def dilated_avg_pool(
  x: Float[Array, "n h w c"], window: int, dilation: int
) -> Float[Array, "n h w c"]:
  """Average pooling at stride 1 over taps `dilation` apart, of equal size.

  Pixel i averages i, i + dilation, ...: those of them that are inside.
  """
  after = dilation * (window - 1)
  total = jax.lax.reduce_window(
    x,
    0.0,
    jax.lax.add,
    (1, window, window, 1),
    (1, 1, 1, 1),
    ((0, 0), (0, after), (0, after), (0, 0)),
    window_dilation=(1, dilation, dilation, 1),
  )
  rows, columns = (
    np.minimum(window, -(-(size - np.arange(size)) // dilation))
    for size in x.shape[1:3]
  )
  return total / jnp.asarray(np.outer(rows, columns)[..., None], x.dtype)


def adaptive_matrix(size: int, bins: int) -> np.ndarray:
  """The `[bins, size]` averaging matrix of adaptive pooling."""
  matrix = np.zeros((bins, size), np.float32)
  for i in range(bins):
    start, stop = i * size // bins, -(-(i + 1) * size // bins)
    matrix[i, start:stop] = 1.0 / (stop - start)
  return matrix


def adaptive_avg_pool(x: jax.Array, bins: int) -> jax.Array:
  """Averages `[n, h, w, c]` into `[n, bins, bins, c]`, overlapping bins."""
  rows = jnp.asarray(adaptive_matrix(x.shape[1], bins), x.dtype)
  cols = jnp.asarray(adaptive_matrix(x.shape[2], bins), x.dtype)
  return jnp.einsum(
    "ih,nhwc,jw->nijc", rows, x, cols, precision=jax.lax.Precision.HIGHEST
  )


def max_pool_with_indices(
  x: Float[Array, "n h w c"],
  window: int,
  stride: int | None = None,
  *,
  padding: int = 0,
  ceil_mode: bool = False,
) -> tuple[Float[Array, "n ho wo c"], Integer[Array, "n ho wo c"]]:
  """Max pooling, and where in its `h x w` plane each maximum stood.

  Returns:
    The values of `max_pool`, and flat indices `row * w + column` into the
    unpadded plane; of equal maxima the first in reading order.
  """
  stride = window if stride is None else stride
  h, w = x.shape[1:3]
  rows, cols = (
    np.arange(pooled_size(size, window, stride, padding, ceil_mode)) * stride
    - padding
    for size in (h, w)
  )
  pads = tuple(
    pool_padding(size, window, stride, padding, ceil_mode) for size in (h, w)
  )
  padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
  # The first pixel of the window stands until a larger one is seen.
  first = np.maximum(rows, 0)[:, None] * w + np.maximum(cols, 0)
  shape = (x.shape[0], len(rows), len(cols), x.shape[3])
  best = jnp.full(shape, -jnp.inf, x.dtype)
  index = jnp.broadcast_to(jnp.asarray(first, jnp.int32)[..., None], shape)
  for i, j in itertools.product(range(window), range(window)):
    seen = jax.lax.slice(
      padded,
      (0, i, j, 0),
      (
        shape[0],
        i + (shape[1] - 1) * stride + 1,
        j + (shape[2] - 1) * stride + 1,
        shape[3],
      ),
      (1, stride, stride, 1),
    )
    here = jnp.asarray((rows + i)[:, None] * w + cols + j, jnp.int32)
    larger = (seen > best) | jnp.isnan(seen)
    best = jnp.where(larger, seen, best)
    index = jnp.where(larger, here[..., None], index)
  return best, index


def unpooled_size(
  size: int, window: int, stride: int | None = None, pad: int = 0
) -> int:
  """Length of an unpooled axis where no explicit size is given."""
  stride = window if stride is None else stride
  return (size - 1) * stride - 2 * pad + window


def max_unpool(
  y: Shaped[Array, "n h w c"],
  indices: Integer[Array, "n h w c"],
  size: tuple[int, int],
  *,
  window: int | None = None,
) -> Shaped[Array, "n h2 w2 c"]:
  """Puts each value where its maximum stood, zeros elsewhere.

  Zeiler & Fergus 2013 (arXiv:1311.2901, Sec. 2.1); SegNet and DeconvNet.
  Where overlapping windows had the same maximum, one of them wins.

  Args:
    y: values to place.
    indices: from `max_pool_with_indices`, flat in a plane of `size`.
    size: height and width of the result, the pooled map's own: with ceil
      mode or odd sizes it does not follow from `y`.
    window: side of the pooling window, if windows neither overlap nor are
      padded: each output pixel then asks its own cell, and no scatter, slow
      on accelerators, is needed. The result is the same.
  """
  n, h, w, c = y.shape
  height, width = size
  if window is None:
    plane = jnp.zeros((n, height * width, c), y.dtype)
    place = jax.vmap(
      jax.vmap(lambda p, i, v: p.at[i].set(v, mode="drop"), -1, -1)
    )
    plane = place(plane, indices.reshape(n, h * w, c), y.reshape(n, h * w, c))
    return plane.reshape(n, height, width, c)
  here = np.arange(height * width, dtype=np.int32).reshape(height, width, 1)

  def spread(a):
    a = jnp.repeat(jnp.repeat(a, window, axis=1), window, axis=2)
    # Rows that a flooring pool never read belong to no cell; the zeros there
    # claim pixel 0, which is always in a cell of its own.
    missing = [
      (0, max(full - got, 0))
      for full, got in zip(size, a.shape[1:3], strict=True)
    ]
    return jnp.pad(a, ((0, 0), *missing, (0, 0)))[:, :height, :width]

  return jnp.where(spread(indices) == here, spread(y), jnp.zeros((), y.dtype))


def transpose_pool(
  pool: Callable[[jax.Array], jax.Array], x: jax.Array, y: jax.Array
) -> jax.Array:
  """The exact transpose of `pool` at `x`, applied to `y`.

  For max pooling this is unpooling that adds where windows share a maximum;
  for average pooling every value is spread evenly over its window.
  """
  return jax.vjp(pool, x)[1](y)[0]
