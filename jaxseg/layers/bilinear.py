"""Bilinear interpolation: weights of pixels, and three ways to apply them.

Along one axis, a fractional position lies between two pixels, its *taps*; pixel
i has its centre at position i. `taps` returns their indices and weights, with
the border rule as an argument. The taps are applied in one of three ways:

- `interpolate` gathers both pixels along one axis. It suits product grids and
  few channels, and runs on NumPy and JAX arrays.
- `interpolation_matrix` writes the taps as a matrix. It suits product grids
  of feature maps: its gradient is a matrix product too, not a scatter.
- `sample_bilinear` reads a map at arbitrary positions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num
import numpy as np

BORDERS = ("edge", "zero")


class Taps(NamedTuple):
  """The two pixels around each position along an axis, and their weights.

  Indices always lie inside the axis. A pixel that counts as zero because it
  lies outside has weight zero.

  Attributes:
    low: Index of the pixel before the position.
    high: Index of the pixel after the position.
    low_weight: Weight of `low`.
    high_weight: Weight of `high`.
  """

  low: Any
  high: Any
  low_weight: Any
  high_weight: Any

  def part(self, index: Any) -> "Taps":
    """Returns the taps of the positions that `index` selects."""
    return Taps(*(array[index] for array in self))


def taps(position: Any, size: Any, *, border: str = "edge", dtype=None) -> Taps:
  """Computes the taps of fractional positions along an axis.

  Args:
    position: Positions, a NumPy or a JAX array of floats.
    size: Number of pixels of the axis; may be a traced integer.
    border: Value outside the axis. "edge" repeats the outermost pixel. "zero"
      counts every pixel outside as zero, so that the map fades to zero within
      one pixel of its border.
    dtype: Dtype of the weights; None keeps the dtype of `position`.

  Raises:
    ValueError: `border` is unknown.
  """
  if border not in BORDERS:
    raise ValueError(f"border={border!r}: expected one of {BORDERS}")
  xp = np if isinstance(position, np.ndarray) else jnp
  last = size - 1
  if border == "edge":
    position = xp.clip(position, 0, last)
  else:
    # Everything is zero from one pixel outside on. Clipping keeps positions
    # that are far outside from overflowing the integer index.
    position = xp.clip(position, -1, size)
  floor = xp.floor(position)
  low = floor.astype(np.int32)
  high_weight = position - floor
  if dtype is not None:
    high_weight = high_weight.astype(dtype)
  low_weight = 1 - high_weight
  if border == "edge":
    return Taps(low, xp.minimum(low + 1, last), low_weight, high_weight)
  high = low + 1
  return Taps(
    xp.clip(low, 0, last),
    xp.clip(high, 0, last),
    xp.where((low >= 0) & (low <= last), low_weight, 0),
    xp.where((high >= 0) & (high <= last), high_weight, 0),
  )


def rational_taps(numerator: Any, denominator: Any, size: Any) -> Taps:
  """Computes the taps of positions `numerator / denominator`, border "edge".

  The integer part is exact, whatever the size of the numerator; the weights
  are float32. A float32 position of a large image would lose digits.

  Args:
    numerator: Integers.
    denominator: A positive integer.
    size: Number of pixels of the axis; may be a traced integer.
  """
  low = numerator // denominator
  high_weight = (numerator % denominator / denominator).astype(jnp.float32)
  return Taps(
    jnp.clip(low, 0, size - 1),
    jnp.clip(low + 1, 0, size - 1),
    1 - high_weight,
    high_weight,
  )


def interpolate(x: Any, at: Taps, axis: int) -> Any:
  """Interpolates a NumPy or JAX array linearly along one axis.

  Args:
    x: An array of floats, or of integers if the weights are floats.
    at: One-dimensional taps.
    axis: Axis of `x` that the taps index, counted from the front.
  """
  ahead = (slice(None),) * axis
  along = (slice(None),) + (None,) * (x.ndim - axis - 1)
  low, high = x[*ahead, at.low], x[*ahead, at.high]
  return low * at.low_weight[along] + high * at.high_weight[along]


def interpolation_matrix(at: Taps, size: int) -> Any:
  """Returns taps of `out` positions as an `[out, size]` matrix of weights."""
  xp = np if isinstance(at.low, np.ndarray) else jnp
  pixel = np.arange(size)
  low = xp.where(at.low[:, None] == pixel, at.low_weight[:, None], 0)
  high = xp.where(at.high[:, None] == pixel, at.high_weight[:, None], 0)
  return low + high


def sample_bilinear(
  x: Num[Array, "h w c"],
  row: Float[Array, "*grid"],
  column: Float[Array, "*grid"],
  *,
  border: str,
  size: Any = None,
) -> Float[Array, "*grid c"]:
  """Reads a map at arbitrary fractional positions.

  The result is differentiable in the map and in the positions.

  Args:
    x: The map. Integers are interpolated in the dtype of the positions.
    row: Vertical positions.
    column: Horizontal positions.
    border: Border rule, see `taps`.
    size: Height and width of the valid part of `x`, which starts at the top
      left; may be traced integers. None means all of `x`.
  """
  h, w, c = x.shape
  height, width = (h, w) if size is None else size
  rows = taps(row, height, border=border)
  columns = taps(column, width, border=border)
  pixels = x.reshape(h * w, c)

  # The loop adds one neighbour after the other, and the checkpoint gathers it
  # again for the gradient. This takes half the memory of gathering all four at
  # once and is no slower.
  @jax.checkpoint
  def add_neighbour(total, neighbour):
    below, right = neighbour
    r = jnp.where(below, rows.high, rows.low)
    s = jnp.where(right, columns.high, columns.low)
    weight = jnp.where(below, rows.high_weight, rows.low_weight)
    weight *= jnp.where(right, columns.high_weight, columns.low_weight)
    return total + weight[..., None] * pixels[r * w + s], None

  total = jnp.zeros((*row.shape, c), jnp.promote_types(x.dtype, row.dtype))
  neighbours = jnp.asarray([(0, 0), (0, 1), (1, 0), (1, 1)])
  return jax.lax.scan(add_neighbour, total, neighbours)[0]
