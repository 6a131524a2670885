"""Regions equal flood fill; distances equal a search of all pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.regions import connected_regions, nearest_two


def numbered(mask):
  mask = jnp.asarray(mask)
  return np.asarray(jax.jit(connected_regions)(mask.astype(int), mask))


def _flooded(mask):
  """Numbers regions by flood fill from each pixel without a number."""
  regions, number = np.zeros(mask.shape, int), 0
  for y, x in np.argwhere(mask):
    if regions[y, x]:
      continue
    number += 1
    waiting = [(y, x)]
    while waiting:
      a, b = waiting.pop()
      if 0 <= a < len(mask) and 0 <= b < mask.shape[1]:
        if mask[a, b] and not regions[a, b]:
          regions[a, b] = number
          waiting += [(a + 1, b), (a - 1, b), (a, b + 1), (a, b - 1)]
  return regions


@pytest.mark.parametrize("density", [0.3, 0.55, 0.7, 1.0])
def test_regions_equal_flood_fill(density):
  rng = np.random.default_rng(0)
  for shape in [(1, 9), (9, 1), (17, 23)]:
    mask = rng.random(shape) < density
    found, expected = numbered(mask), _flooded(mask)
    assert ((found > 0) == mask).all()
    # The partitions are equal; the numbers may differ.
    pairs = set(zip(found[mask], expected[mask], strict=True))
    assert len(pairs) == len(np.unique(found[mask])) == expected.max()


def test_no_region_in_an_empty_mask():
  assert not numbered(np.zeros((4, 5), bool)).any()


def test_a_snake_is_one_region():
  mask = np.zeros((41, 40), bool)
  mask[::2] = True
  mask[1::4, -1] = mask[3::4, 0] = True
  assert len(np.unique(numbered(mask)[mask])) == 1


def test_neighbours_of_different_labels_are_different_regions():
  label = jnp.asarray([[1, 1, 2], [2, 1, 1], [0, 3, 3]])
  found = np.asarray(connected_regions(label, label > 0))
  one, right, left, three = found[0, 0], found[0, 2], found[1, 0], found[2, 1]
  assert len({one, right, left, three, 0}) == 5
  np.testing.assert_array_equal(
    found, [[one, one, right], [left, one, one], [0, three, three]]
  )


def boxes(seed=0, shape=(19, 23), count=4):
  """Returns numbered boxes, some of which touch the border of the image."""
  rng = np.random.default_rng(seed)
  regions = np.zeros(shape, np.int32)
  for number in range(1, count + 1):
    y, x = rng.integers(0, shape[0] - 2), rng.integers(0, shape[1] - 2)
    regions[y : y + 3, x : x + 4] = number
  return regions


def all_distances(regions):
  """Returns the sorted distances of every pixel to every region."""
  grid = np.stack(np.indices(regions.shape), axis=-1)
  distances = []
  for number in np.unique(regions[regions > 0]):
    at = np.argwhere(regions == number)
    d = np.linalg.norm(grid[:, :, None] - at, axis=-1)
    distances.append(d.min(axis=-1))
  return np.sort(distances, axis=0)


@pytest.mark.parametrize("seed", range(6))
def test_distances_are_exact(seed):
  regions = boxes(seed, count=3 + seed)
  d1, d2, *_ = all_distances(regions)
  nearest, second = nearest_two(jnp.asarray(regions), 30)
  np.testing.assert_allclose(nearest, d1, rtol=1e-6)
  np.testing.assert_allclose(second, d2, rtol=1e-6)


def test_distances_beyond_reach_are_infinite():
  regions = np.zeros((1, 9), np.int32)
  regions[0, 0], regions[0, 8] = 1, 2
  nearest, second = nearest_two(jnp.asarray(regions), 3)
  inf = np.inf
  np.testing.assert_array_equal(nearest[0], [0, 1, 2, 3, inf, 3, 2, 1, 0])
  assert np.isinf(second).all()
