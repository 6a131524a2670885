"""U-Net's weight map against its formula, computed pixel by pixel."""

import numpy as np

from jaxseg.data.border_weights import (
  border_weights,
  squared_distance,
  two_distances,
)


def _cells(seed=0, shape=(19, 23), count=4):
  """Boxes with ids, some of which touch the border of the image."""
  rng = np.random.default_rng(seed)
  cells = np.zeros(shape, np.int32)
  for cell in range(1, count + 1):
    y, x = rng.integers(0, shape[0] - 2), rng.integers(0, shape[1] - 2)
    cells[y : y + 3, x : x + 4] = cell
  return cells


def _brute(cells):
  """Sorted distances of every pixel to every cell."""
  grid = np.stack(np.indices(cells.shape), axis=-1)
  distances = []
  for cell in np.unique(cells[cells > 0]):
    at = np.argwhere(cells == cell)
    d = np.linalg.norm(grid[:, :, None] - at, axis=-1)
    distances.append(d.min(axis=-1))
  return np.sort(distances, axis=0)


def test_distances_are_exact():
  for seed in range(4):
    cells = _cells(seed)
    d1, d2, *_ = _brute(cells)
    nearest, second = two_distances(cells, reach=30)
    np.testing.assert_allclose(nearest, d1)
    np.testing.assert_allclose(second, d2)
    whole = np.sqrt(squared_distance(cells > 0, 30))
    np.testing.assert_allclose(whole, d1)


def test_distances_beyond_reach_are_infinite():
  cells = np.zeros((1, 9), int)
  cells[0, 0] = 1
  d = np.sqrt(squared_distance(cells > 0, 3))
  np.testing.assert_array_equal(d[0], [0, 1, 2, 3, *[np.inf] * 5])


def test_weights_are_the_formula():
  cells = _cells(1)
  d1, d2, *_ = _brute(cells)
  w0, sigma = 10.0, 5.0
  share = np.mean(cells > 0)
  balance = np.where(cells > 0, 0.5 / share, 0.5 / (1 - share))
  border = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
  expected = balance + np.where(cells > 0, 0, border)
  np.testing.assert_allclose(border_weights(cells), expected, atol=1e-6)


def test_a_narrow_gap_weighs_most():
  cells = np.zeros((5, 20), int)
  cells[:, :6], cells[:, 7:10] = 1, 2
  cells[:, 16:] = 3
  weights = border_weights(cells, sigma=2.0)
  assert weights.argmax() % 20 == 6
  # One pixel off both: d1 = d2 = 1.
  background = 0.5 / np.mean(cells == 0)
  np.testing.assert_allclose(
    weights[2, 6], background + 10 * np.exp(-4 / 8), rtol=1e-6
  )


def test_one_cell_has_no_border():
  cells = np.zeros((8, 8), int)
  cells[2:4] = 1
  np.testing.assert_allclose(
    border_weights(cells), np.where(cells > 0, 2.0, 32 / 48)
  )
