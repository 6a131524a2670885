"""Connected regions of a label map and distances to the two nearest ones.

Both functions run inside jit, on augmented labels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0))

# A region for each pixel, and the squared distance to it.
Near = tuple[Int[Array, "h w"], Float[Array, "h w"]]


def connected_regions(
  label: Integer[Array, "h w"], inside: Bool[Array, "h w"]
) -> Int[Array, "h w"]:
  """Numbers the connected regions of equal labels.

  Two pixels are neighbours if they share an edge. Every pixel starts as a tree
  of its own. Trees that touch are attached to the one with the highest number,
  and paths are halved, until nothing changes (FastSV, Zhang et al. 2020,
  doi:10.1137/1.9781611976137.5).

  Args:
    label: Class ids; all pixels of a region have the same.
    inside: Mask of the pixels that belong to a region.

  Returns:
    One number between 1 and h w for each region, not consecutive, and 0 outside
    of `inside`.
  """
  h, w = label.shape
  numbers = jnp.arange(1, h * w + 1, dtype=jnp.int32).reshape(h, w)
  # Index 0 of the flat map represents "outside" and is its own parent.
  start = jnp.concatenate([jnp.zeros(1, jnp.int32), (numbers * inside).ravel()])
  same = [
    (label == _shifted(label, by, 0)) & inside & _shifted(inside, by, False)
    for by in NEIGHBOURS
  ]

  def grow(state):
    parent, _ = state
    grandparent = parent[parent]
    ahead = grandparent[1:].reshape(h, w)
    highest = ahead
    for by, joined in zip(NEIGHBOURS, same, strict=True):
      highest = jnp.where(
        joined, jnp.maximum(highest, _shifted(ahead, by, 0)), highest
      )
    highest = jnp.concatenate([jnp.zeros(1, jnp.int32), highest.ravel()])
    grown = jnp.maximum(grandparent, highest).at[parent].max(highest)
    return grown, jnp.any(grown != parent)

  parent, _ = jax.lax.while_loop(
    lambda state: state[1], grow, (start, jnp.array(True))
  )
  return parent[1:].reshape(h, w)


def nearest_two(
  regions: Int[Array, "h w"], reach: int
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
  """Returns Euclidean distances to the nearest and second nearest region.

  Distances are exact. In each column, only the two regions nearest to the
  pixel's row can be among the two nearest regions of the pixel. Columns are
  therefore searched first, then rows.

  Args:
    regions: Numbers of `connected_regions`; 0 means no region.
    reach: Largest distance in rows and in columns; distances beyond are
      infinite.
  """
  far = jnp.full(regions.shape, jnp.inf)
  none = (jnp.zeros_like(regions), far)
  here = (regions, jnp.where(regions > 0, 0.0, jnp.inf))
  two = _search(0, [here], (none, none), reach)
  (_, first), (_, second) = _search(1, two, (none, none), reach)
  return jnp.sqrt(first), jnp.sqrt(second)


def _search(axis: int, found, two, reach: int):
  """Merges candidates up to `reach` pixels away along an axis.

  Distances are squared, so the squared step along the axis is added to the
  squared distance of a candidate.

  Args:
    axis: Axis to search.
    found: Candidates of each pixel.
    two: The two nearest regions so far.
    reach: Largest distance along the axis.

  Returns:
    The two nearest regions.
  """
  size = found[0][0].shape[axis]
  pad = [(reach, reach) if i == axis else (0, 0) for i in range(2)]
  padded = [
    (jnp.pad(region, pad), jnp.pad(d, pad, constant_values=jnp.inf))
    for region, d in found
  ]

  def at(k, two):
    for region, d in padded:
      region, d = (
        jax.lax.dynamic_slice_in_dim(x, k, size, axis) for x in (region, d)
      )
      two = _insert(two, region, d + ((k - reach) ** 2).astype(d.dtype))
    return two

  return jax.lax.fori_loop(0, 2 * reach + 1, at, two)


def _insert(two: tuple[Near, Near], region, d) -> tuple[Near, Near]:
  """Inserts a region into the two nearest ones, which stay different."""
  (first, d1), (second, d2) = two
  nearer = d < d1
  # The farther of `first` and `region` competes for the second place, unless
  # both are the same region.
  loser = jnp.where(nearer, first, region)
  d_loser = jnp.maximum(d, d1)
  better = (region != first) & (d_loser <= d2)
  return (
    (jnp.where(nearer, region, first), jnp.minimum(d, d1)),
    (jnp.where(better, loser, second), jnp.where(better, d_loser, d2)),
  )


def _shifted(x: jax.Array, by: tuple[int, int], fill) -> jax.Array:
  """Returns the pixel `by` rows and columns away from each pixel.

  Pixels outside of `x` have the value `fill`.
  """
  (up, left), (h, w) = by, x.shape
  padded = jnp.pad(x, 1, constant_values=fill)
  return padded[1 + up : 1 + up + h, 1 + left : 1 + left + w]
