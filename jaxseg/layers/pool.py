"""Pooling with the padding and rounding of PyTorch and Caffe.

- `ceil_mode` keeps the last, partial window unless it would start inside the
  right-hand padding (PyTorch's and Caffe's rule alike).
- `adaptive_avg_pool` has PyTorch's overlapping bins: bin i of n over size h
  averages rows floor(i h / n) .. ceil((i + 1) h / n).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
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
  """Max pooling `[n, h, w, c]`; padding counts as -inf."""
  stride = window if stride is None else stride
  pads = tuple(
    pool_padding(size, window, stride, padding, ceil_mode)
    for size in x.shape[1:3]
  )
  return nn.max_pool(x, (window, window), (stride, stride), pads)


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
