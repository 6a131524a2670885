"""Resizing of feature maps, equal to torch.nn.functional.interpolate.

Output pixel i of a bilinear resize from `in_size` to `out_size` reads the
position
- `align_corners=True`: i (in - 1) / (out - 1), so that the centres of the
  corner pixels coincide (Caffe's Interp layer, TensorFlow DeepLab, PSPNet);
- `align_corners=False`: (i + 0.5) in / out - 0.5, clamped to the image
  (torchvision; "half-pixel centres");
- `zoom_bilinear`: i / factor, whatever the sizes (DeepLab, DilatedNet).

Shrinking does not antialias. Nearest-neighbour resizing reads pixel
floor(i in / out).

Rows and columns of a resized map are interpolated independently of each
other, as two matrix products. `layers.bilinear` computes the weights.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from jaxseg.layers.bilinear import interpolation_matrix, taps


def source_positions(
  in_size: int, out_size: int, *, align_corners: bool
) -> np.ndarray:
  """Returns the position that each output pixel of a resize reads."""
  i = np.arange(out_size, dtype=np.float64)
  if align_corners:
    return i * (in_size - 1) / max(out_size - 1, 1)
  return (i + 0.5) * in_size / out_size - 0.5


def bilinear_matrix(
  in_size: int, out_size: int, *, align_corners: bool
) -> np.ndarray:
  """Returns the `[out_size, in_size]` interpolation matrix of one axis."""
  positions = source_positions(in_size, out_size, align_corners=align_corners)
  return interpolation_matrix(taps(positions, in_size), in_size)


def resize_bilinear(
  x: jax.Array, size: tuple[int, int], *, align_corners: bool
) -> jax.Array:
  """Resizes `[n, h, w, c]` bilinearly to `[n, *size, c]`."""
  if tuple(x.shape[1:3]) == tuple(size):
    return x
  if tuple(x.shape[1:3]) == (1, 1):
    return jnp.broadcast_to(x, (x.shape[0], *size, x.shape[3]))
  rows, columns = (
    bilinear_matrix(a, b, align_corners=align_corners)
    for a, b in zip(x.shape[1:3], size, strict=True)
  )
  return _by_matrices(x, rows, columns)


def zoom_bilinear(
  x: jax.Array, factor: int, size: tuple[int, int]
) -> jax.Array:
  """Enlarges a map so that pixel i lands on pixel `factor * i` of the result.

  A result smaller than the enlarged map is cropped; in a larger one the last
  row and column are repeated. At the DeepLabs' sizes, `(h - 1) * factor + 1`,
  the result equals a bilinear resize with `align_corners=True`.

  Args:
    x: A map `[n, h, w, c]`.
    factor: Magnification.
    size: Height and width of the result.
  """
  rows, columns = (
    interpolation_matrix(taps(np.arange(out) / factor, pixels), pixels)
    for pixels, out in zip(x.shape[1:3], size, strict=True)
  )
  return _by_matrices(x, rows, columns)


def resample_bilinear(
  x: Float[Array, "*n h w c"],
  rows: Float[Array, "a"],
  columns: Float[Array, "b"],
) -> Float[Array, "*n a b c"]:
  """Reads a map on the grid of `rows` times `columns`.

  Positions outside the map read its outermost pixels.

  Args:
    x: The map.
    rows: Vertical positions; pixel i is at i. They may be traced.
    columns: Horizontal positions.
  """
  h, w = x.shape[-3:-1]
  return _by_matrices(
    x,
    interpolation_matrix(taps(rows, h), h),
    interpolation_matrix(taps(columns, w), w),
  )


def _by_matrices(x: jax.Array, rows, columns):
  """Multiplies rows, then columns, by interpolation matrices."""
  rows, columns = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
  exact = jax.lax.Precision.HIGHEST
  x = jnp.einsum("ih,...hwc->...iwc", rows, x, precision=exact)
  return jnp.einsum("jw,...iwc->...ijc", columns, x, precision=exact)


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Resizes `[n, h, w, ...]` to the nearest pixel; suits labels too."""
  for axis, out_size in zip((1, 2), size, strict=True):
    in_size = x.shape[axis]
    if in_size != out_size:
      index = np.arange(out_size) * in_size // out_size
      x = jnp.take(x, index, axis=axis)
  return x
