"""Pooling with the padding and rounding of PyTorch and Caffe, and unpooling.

- `ceil_mode` keeps the last, partial window unless it would start inside the
  right-hand padding (the rule of both PyTorch and Caffe).
- `adaptive_avg_pool` has PyTorch's overlapping bins: bin i of n over size h
  averages rows floor(i h / n) .. ceil((i + 1) h / n).
- `max_unpool` unpools by indices, `transpose_pool` by transposition.

The gradient of XLA's pooling window is 3 to 10 times slower on CPU than that of
comparisons of shifted copies. When lowered for CPU, `max_pool` is therefore
computed by such comparisons; for every other platform it is XLA's own window.
The numbers are the same.
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
  """Returns the length of a pooled axis."""
  span = size + 2 * pad - window
  if not ceil_mode:
    return span // stride + 1
  out = -(-span // stride) + 1
  # The last window must start inside the input or its left padding.
  return out - 1 if (out - 1) * stride >= size + pad else out


def pool_padding(
  size: int, window: int, stride: int, pad: int, ceil_mode: bool
) -> tuple[int, int]:
  """Returns the padding (before, after) that floor-mode pooling needs.

  Pooling the padded axis without `ceil_mode` gives `pooled_size`.
  """
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
  """Takes the maximum of each window of `[n, h, w, c]`.

  The first of equal maxima, in reading order, receives the gradient.

  Args:
    x: Input.
    window: Side of the square windows.
    stride: Spacing of the windows; None means `window`.
    padding: Padding on every side, which counts as -inf.
    ceil_mode: Whether to keep partial windows at the bottom and right.
  """
  stride = window if stride is None else stride
  pads = tuple(
    pool_padding(size, window, stride, padding, ceil_mode)
    for size in x.shape[1:3]
  )
  return _max_pool(x, window, stride, pads)


# Outside of jit, the compiled function is kept for the next call.
@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _max_pool(x, window: int, stride: int, pads):
  """Takes maxima over padded windows in the formulation for the platform."""

  def by_window(x):
    return nn.max_pool(x, (window, window), (stride, stride), pads)

  def by_shifts(x):
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    return _sliding_max(_sliding_max(x, 2, window, stride), 1, window, stride)

  return jax.lax.platform_dependent(x, cpu=by_shifts, default=by_window)


def _sliding_max(x: jax.Array, axis: int, window: int, stride: int):
  """Takes maxima along one axis by comparing shifted copies.

  Only a larger value replaces the current maximum, so the first of equal maxima
  is kept, as in XLA's window.
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
  """Takes the maximum over taps `dilation` pixels apart, at stride 1.

  XLA has no gradient for a dilated window, so shifted copies are compared along
  rows, then along columns.

  Args:
    x: Input.
    window: Number of taps along each axis.
    dilation: Spacing of the taps.
    pads: Rows and columns of -inf added (before, after).
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
  """Averages each window.

  Args:
    x: Input.
    window: Side of the square windows.
    stride: Spacing of the windows; None means `window`. Partial windows at the
      bottom and right are dropped.
    padding: Padding on every side, which counts as zeros.
  """
  stride = window if stride is None else stride
  pads = ((padding, padding),) * 2
  return nn.avg_pool(x, (window, window), (stride, stride), pads)


def dilated_avg_pool(
  x: Float[Array, "n h w c"], window: int, dilation: int
) -> Float[Array, "n h w c"]:
  """Averages over taps `dilation` pixels apart, at stride 1.

  Output pixel i averages the pixels i, i + dilation, ... that lie inside the
  map. The size stays the same.
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
  """Returns the `[bins, size]` averaging matrix of adaptive pooling."""
  matrix = np.zeros((bins, size), np.float32)
  for i in range(bins):
    start, stop = i * size // bins, -(-(i + 1) * size // bins)
    matrix[i, start:stop] = 1.0 / (stop - start)
  return matrix


def adaptive_avg_pool(x: jax.Array, bins: int) -> jax.Array:
  """Averages `[n, h, w, c]` over overlapping bins to `[n, bins, bins, c]`."""
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
  """Takes the maximum of each window, and its index in the `h x w` plane.

  Returns:
    The values of `max_pool`, and flat indices `row * w + column` into the
    unpadded plane. Of equal maxima, the first in reading order counts.
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
  # The index starts at the first pixel of each window; larger ones replace it.
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


def max_unpool(
  y: Shaped[Array, "n h w c"],
  indices: Integer[Array, "n h w c"],
  size: tuple[int, int],
  *,
  window: int | None = None,
) -> Shaped[Array, "n h2 w2 c"]:
  """Puts each value at the position of its maximum, and zeros elsewhere.

  Zeiler & Fergus 2013 (arXiv:1311.2901, Sec. 2.1); SegNet and DeconvNet. If
  overlapping windows share a maximum, one of their values is kept.

  Args:
    y: Values to place.
    indices: Indices of `max_pool_with_indices`, flat in a plane of `size`.
    size: Height and width of the map that was pooled. With ceil mode or odd
      sizes it does not follow from `y`.
    window: Side of the pooling windows, if they neither overlap nor are padded.
      The same result is then computed without a scatter, which is slow on
      accelerators: each output pixel compares its index with its own cell's.
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
    # Index 0 pads the rows that floor-mode pooling skipped; pixel 0 never lies
    # in that padding.
    missing = [
      (0, max(full - got, 0))
      for full, got in zip(size, a.shape[1:3], strict=True)
    ]
    return jnp.pad(a, ((0, 0), *missing, (0, 0)))[:, :height, :width]

  return jnp.where(spread(indices) == here, spread(y), jnp.zeros((), y.dtype))


def transpose_pool(
  pool: Callable[[jax.Array], jax.Array], x: jax.Array, y: jax.Array
) -> jax.Array:
  """Applies the transpose of `pool`, linearised at `x`, to `y`.

  For max pooling this is unpooling that adds the values of windows that share a
  maximum. For average pooling it spreads every value evenly over its window.
  """
  return jax.vjp(pool, x)[1](y)[0]
