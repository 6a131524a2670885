"""Resizing of feature maps, equal to torch.nn.functional.interpolate.

Bilinear source coordinate of output i, from `in_size` to `out_size`:
- `align_corners=True`: i (in - 1) / (out - 1), the corners' centres coincide
  (Caffe's Interp layer, TensorFlow DeepLab, PSPNet);
- `align_corners=False`: (i + 0.5) in / out - 0.5, clamped to the image
  (torchvision, half-pixel centres);
- `zoom_bilinear`: i / factor, whatever the size (DeepLab, DilatedNet).
No antialiasing when shrinking, in either. Nearest takes floor(i in / out).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np


def bilinear_matrix(
  in_size: int, out_size: int, *, align_corners: bool
) -> np.ndarray:
  """The `[out_size, in_size]` interpolation matrix of one axis."""
  i = np.arange(out_size, dtype=np.float64)
  if align_corners:
    source = i * (in_size - 1) / max(out_size - 1, 1)
  else:
    source = (i + 0.5) * in_size / out_size - 0.5
  source = np.clip(source, 0, in_size - 1)
  low = np.minimum(np.floor(source).astype(int), max(in_size - 2, 0))
  high = np.minimum(low + 1, in_size - 1)
  weight = source - low
  matrix = np.zeros((out_size, in_size))
  np.add.at(matrix, (np.arange(out_size), low), 1 - weight)
  np.add.at(matrix, (np.arange(out_size), high), weight)
  return matrix


def zoom_matrix(in_size: int, factor: int, out_size: int) -> np.ndarray:
  """The `[out_size, in_size]` matrix that reads at i / factor, clamped."""
  whole = bilinear_matrix(
    in_size, (in_size - 1) * factor + 1, align_corners=True
  )
  return whole[np.minimum(np.arange(out_size), len(whole) - 1)]


def resize_bilinear(
  x: jax.Array, size: tuple[int, int], *, align_corners: bool
) -> jax.Array:
  """Bilinear `[n, h, w, c] -> [n, *size, c]`, as two matrix products."""
  if tuple(x.shape[1:3]) == tuple(size):
    return x
  if tuple(x.shape[1:3]) == (1, 1):
    return jnp.broadcast_to(x, (x.shape[0], *size, x.shape[3]))
  return _by_matrices(
    x,
    *(
      bilinear_matrix(a, b, align_corners=align_corners)
      for a, b in zip(x.shape[1:3], size, strict=True)
    ),
  )


def zoom_bilinear(
  x: jax.Array, factor: int, size: tuple[int, int]
) -> jax.Array:
  """Enlarges a map whose pixel i lies on pixel `factor * i` of the result.

  Where the result ends before the enlarged map it is cropped, where it goes
  on the last row or column is repeated. On the DeepLabs' own sizes, (h - 1)
  factor + 1, this is bilinear resizing with `align_corners=True`.

  Args:
    x: `[n, h, w, c]`.
    factor: how many times larger.
    size: height and width of the result.
  """
  return _by_matrices(
    x,
    *(
      zoom_matrix(a, factor, b) for a, b in zip(x.shape[1:3], size, strict=True)
    ),
  )


def sample_bilinear(
  x: Float[Array, "h w c"],
  rows: Float[Array, "a"],
  columns: Float[Array, "b"],
) -> Float[Array, "a b c"]:
  """Reads a map between its pixels; beyond the outermost their value holds.

  Args:
    x: one map.
    rows: coordinates, pixel i being at i; they need not be known to jit.
    columns: likewise.
  """
  weights = []
  for size, source in zip(x.shape, (rows, columns), strict=False):
    distance = jnp.abs(
      jnp.clip(source, 0, size - 1)[:, None] - jnp.arange(size)
    )
    weights.append(jnp.maximum(1 - distance, 0).astype(x.dtype))
  return jnp.einsum(
    "ah,hwc,bw->abc", weights[0], x, weights[1],
    precision=jax.lax.Precision.HIGHEST,
  )  # fmt: skip


def _by_matrices(x: jax.Array, rows: np.ndarray, cols: np.ndarray):
  """Rows, then columns, as products with interpolation matrices."""
  rows, cols = jnp.asarray(rows, x.dtype), jnp.asarray(cols, x.dtype)
  exact = jax.lax.Precision.HIGHEST
  x = jnp.einsum("ih,nhwc->niwc", rows, x, precision=exact)
  return jnp.einsum("jw,niwc->nijc", cols, x, precision=exact)


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Nearest `[n, h, w, ...] -> [n, *size, ...]`; also for labels."""
  for axis, out_size in zip((1, 2), size, strict=True):
    in_size = x.shape[axis]
    if in_size != out_size:
      index = np.arange(out_size) * in_size // out_size
      x = jnp.take(x, index, axis=axis)
  return x
