"""High-dimensional Gaussian filtering on the permutohedral lattice.

The sum y_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j over all pairs of n points costs
n^2. Adams, Baek and Davis 2010 ("Fast high-dimensional filtering using the
permutohedral lattice", Fig. 2) approximate it in O(n d^2). Points are placed in
a lattice of simplices in d + 1 coordinates that sum to zero. Each value is
*splatted* onto the d + 1 corners of its simplex with its barycentric weights,
the values of lattice points are *blurred* by (1/2, 1, 1/2) along each of the
d + 1 lattice directions, and *sliced* back with the same weights.

Conventions are those of the DenseCRF library (permutohedral.cpp, behind
pydensecrf), whose results this file reproduces. Features are scaled by
sqrt(2/3) (d + 1), the expected deviation of the filter (p. 6 of the paper).
Axes are blurred in order 0..d. Lattice points that no simplex touches take no
part in the blur. The result is multiplied by 1 / (1 + 2^-d).

There is no hash table. Instead, all n (d + 1) corners are sorted by their
coordinates, so that equal corners become neighbours and get one number. Shapes
are static, with room for every corner to be a point of its own, but loops over
lattice points stop at their actual number, which is a small share of the room
for images.

The filter K = slice . blur_d ... blur_0 . splat is linear in the values, and
each blur is symmetric. The transpose of K is therefore the same filter with its
axes in reversed order, and serves as its gradient. Features receive no
gradient.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

BLOCK = 8192  # Lattice points that a loop processes at a time.
RADIX = 2**16  # Two coordinates share an int32, as shorts.
UNUSED = np.iinfo(np.int32).max  # Coordinate of unused rows; sorts last.


class Lattice(NamedTuple):
  """Points of a lattice around n features; p is the room for points.

  Attributes:
    corners: Lattice points around each feature.
    weights: Barycentric weight of each corner.
    after: Next point along each axis, or p if there is none.
    before: Previous point along each axis, or p if there is none.
    count: Number of points; entries from `count` on are unused.
  """

  corners: Int[Array, "n d+1"]
  weights: Float[Array, "n d+1"]
  after: Int[Array, "d+1 p"]
  before: Int[Array, "d+1 p"]
  count: Int[Array, ""]


def scales(d: int) -> np.ndarray:
  """Returns the factors that scale features (p. 5-6 of the paper)."""
  i = np.arange(d)
  deviation = math.sqrt(2 / 3) * (d + 1)
  return (deviation / np.sqrt((i + 1) * (i + 2))).astype(np.float32)


def fits(extent: Float[np.ndarray, "d"]) -> bool:
  """Returns whether coordinates of features within +-extent fit a short."""
  d = len(extent)
  f = extent * scales(d)
  largest = max(f.sum(), *(f[i:].sum() + i * f[i - 1] for i in range(1, d + 1)))
  return bool(largest + 2 * (d + 1) < RADIX / 2)


def build(features: Float[Array, "n d"]) -> Lattice:
  """Builds the lattice of features, given in standard deviations."""
  features = jax.lax.stop_gradient(features.astype(jnp.float32))
  n, d = features.shape
  keys, weights = _simplices(features)
  corners, points, count = _number(_pack(keys.reshape(n * (d + 1), d)))
  after, before = _neighbours(points, count, d)
  return Lattice(corners.reshape(n, d + 1), weights, after, before, count)


def _simplices(features: Float[Array, "n d"]):
  """Returns corners `[n, d + 1, d]` of each simplex, and their weights."""
  d = features.shape[1]
  # Elevate features to d + 1 coordinates that sum to zero (p. 5).
  f = features * scales(d)
  total = jnp.zeros_like(f[:, 0])
  y = []
  for i in reversed(range(d)):
    y.append(total - (i + 1) * f[:, i])
    total += f[:, i]
  y = jnp.stack([total, *reversed(y)], axis=1)

  # Find the closest point of remainder 0, whose coordinates are multiples of
  # d + 1, and the rank of each coordinate's distance to it (p. 9-10).
  multiple = jnp.round(y * np.float32(1 / (d + 1)))
  distance = y - multiple * (d + 1)
  here, other = distance[:, :, None], distance[:, None, :]
  index = np.arange(d + 1)
  earlier = index[None, :] < index[:, None]
  rank = jnp.sum(
    (other > here) | ((other == here) & earlier), axis=2, dtype=jnp.int32
  )
  # Rounding may leave the plane of sum zero; move the point back to it.
  rank += jnp.sum(multiple, axis=1, dtype=jnp.int32)[:, None]
  step = (rank < 0).astype(jnp.int32) - (rank > d).astype(jnp.int32)
  rank += step * (d + 1)
  multiple += step
  distance = (y - multiple * (d + 1)) * np.float32(1 / (d + 1))

  # Barycentric weights are differences of sorted distances (p. 10).
  at = rank[:, :, None] == d - index
  ascending = jnp.sum(jnp.where(at, distance[:, :, None], 0), axis=1)
  weights = ascending - jnp.roll(ascending, 1, axis=1)
  weights = weights.at[:, 0].add(1)

  # Corner r adds r to the d + 1 - r lowest ranks and r - (d + 1) to the others.
  origin = (multiple * (d + 1)).astype(jnp.int32)
  r = index[:, None]
  wrapped = rank[:, None, :] > d - r
  keys = origin[:, None, :] + jnp.where(wrapped, r - (d + 1), r)
  # The last coordinate is minus the sum of the others and is left out.
  return keys[:, :, :d], weights


def _pack(keys) -> list:
  """Packs keys `[m, d]` into int32 columns of two coordinates each.

  Packing is linear: the columns of a sum of keys are the sums of their columns.
  """
  d = keys.shape[1]
  return [
    keys[:, i] * RADIX + keys[:, i + 1] if i + 1 < d else keys[:, i]
    for i in range(0, d, 2)
  ]


def _number(columns: list[jax.Array]):
  """Numbers rows so that equal rows share a number.

  Returns:
    The number of each row, the sorted points as columns, and their count.
  """
  m = len(columns[0])
  room = -(-m // BLOCK) * BLOCK if m > BLOCK else m
  order = jnp.arange(m, dtype=jnp.int32)
  *ordered, order = jax.lax.sort(
    (*columns, order), num_keys=len(columns), is_stable=False
  )
  fresh = jnp.zeros(m - 1, bool)
  for column in ordered:
    fresh |= column[1:] != column[:-1]
  number = jnp.cumsum(fresh, dtype=jnp.int32)
  number = jnp.concatenate([jnp.zeros(1, jnp.int32), number])
  points = [
    jnp.full(room, UNUSED, jnp.int32).at[number].set(column)
    for column in ordered
  ]
  return jnp.zeros_like(order).at[order].set(number), points, number[-1] + 1


def _neighbours(points: list[jax.Array], count: jax.Array, d: int):
  """Returns the next and previous points along each axis, `[d + 1, room]`."""
  room = len(points[0])
  # A step along axis i adds d to coordinate i and -1 to all others.
  steps = (d + 1) * np.eye(d + 1, d, dtype=np.int32) - 1
  steps = [step[:, None] for step in _pack(steps)]
  block = min(BLOCK, room)

  def search(start, tables):
    after, before = tables
    number = start + jnp.arange(block, dtype=jnp.int32)
    sought = [
      jax.lax.dynamic_slice(column, (start,), (block,)) + step
      for column, step in zip(points, steps, strict=True)
    ]
    found = _binary_search(points, sought, count)
    found = jnp.where(number < count, found, room)
    after = jax.lax.dynamic_update_slice(after, found, (0, start))
    axis = np.arange(d + 1)[:, None]
    # Write the step back; steps to a missing point are dropped.
    before = before.at[axis, found].set(number[None], mode="drop")
    return after, before

  nowhere = jnp.full((d + 1, room), room, jnp.int32)
  return _over_blocks(count, block, search, (nowhere, nowhere))


def _binary_search(points: list[jax.Array], sought: list[jax.Array], count):
  """Returns the index of each sought row in the points, or `room` if absent."""
  room = len(points[0])

  def halve(_, interval):
    low, high = interval
    middle = (low + high) // 2
    less, equal = False, True
    for column, value in zip(points, sought, strict=True):
      here = column[middle]
      less |= equal & (here < value)
      equal &= here == value
    return jnp.where(less, middle + 1, low), jnp.where(less, high, middle)

  low = jnp.zeros(sought[0].shape, jnp.int32)
  high = jnp.full(sought[0].shape, count, jnp.int32)
  low, _ = jax.lax.fori_loop(0, room.bit_length(), halve, (low, high))
  there = low < count
  for column, value in zip(points, sought, strict=True):
    there &= column[jnp.minimum(low, room - 1)] == value
  return jnp.where(there, low, room)


def _over_blocks(count: jax.Array, block: int, body, carry):
  """Runs `carry = body(start, carry)` over blocks that cover `count` points."""

  def step(i, carry):
    return body(i * block, carry)

  return jax.lax.fori_loop(0, (count + block - 1) // block, step, carry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def gaussian_filter(
  lattice: Lattice, values: Float[Array, "n k"], reverse: bool = False
) -> Float[Array, "n k"]:
  """Returns the Gaussian sum over all points, each point itself included.

  The sum is differentiable in the values.

  Args:
    lattice: Lattice of the features of the points.
    values: Values of the points.
    reverse: Whether to blur axes in reversed order, which transposes the
      filter.
  """
  n, k = values.shape
  axes, room = lattice.after.shape
  # The last row represents every missing neighbour and stays zero.
  rows = jnp.zeros((room + 1, k), values.dtype)
  weights = lattice.weights[:, :, None].astype(values.dtype)
  rows = rows.at[lattice.corners].add(values[:, None] * weights)
  spare = jnp.zeros_like(rows)
  for axis in reversed(range(axes)) if reverse else range(axes):
    rows, spare = _blur(lattice, axis, rows, spare), rows
  alpha = 1 / (1 + 2.0 ** (1 - axes))
  return alpha * jnp.sum(rows[lattice.corners] * weights, axis=1)


def _blur(lattice: Lattice, axis: int, rows: jax.Array, out: jax.Array):
  """Blurs `rows` by (1/2, 1, 1/2) along an axis, into the buffer `out`."""
  room, k = out.shape[0] - 1, out.shape[1]
  block = min(BLOCK, room)

  def blur(start, out):
    after = jax.lax.dynamic_slice(lattice.after[axis], (start,), (block,))
    before = jax.lax.dynamic_slice(lattice.before[axis], (start,), (block,))
    here = jax.lax.dynamic_slice(rows, (start, 0), (block, k))
    here += 0.5 * (rows[after] + rows[before])
    return jax.lax.dynamic_update_slice(out, here, (start, 0))

  return _over_blocks(lattice.count, block, blur, out)


def _forward(lattice, values, reverse):
  return gaussian_filter(lattice, values, reverse), lattice


def _backward(reverse, lattice, cotangent):
  return None, gaussian_filter(lattice, cotangent, not reverse)


gaussian_filter.defvjp(_forward, _backward)
