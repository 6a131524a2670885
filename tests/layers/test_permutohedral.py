"""The lattice against its definition, implemented with a dictionary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers import permutohedral


class Dictionary:
  """Algorithm of Adams et al. 2010, point by point in float64.

  A call returns slice(blur(splat(values))). Lattice points are dictionary keys.
  """

  def __init__(self, features):
    n, d = features.shape
    self.index = {}
    self.corners = np.zeros((n, d + 1), int)
    self.weights = np.zeros((n, d + 1))
    for i, f in enumerate(features):
      for r, (key, weight) in enumerate(self.simplex(f)):
        self.corners[i, r] = self.index.setdefault(key, len(self.index))
        self.weights[i, r] = weight

  @staticmethod
  def simplex(f):
    """Yields the corners around a point and their weights (p. 5, 9-10)."""
    d = len(f)
    scale = np.sqrt(2 / 3) * (d + 1)
    basis = np.zeros((d + 1, d))  # Column i is (1, .., 1, -(i + 1), 0, .., 0).
    for i in range(d):
      basis[: i + 1, i] = 1
      basis[i + 1, i] = -(i + 1)
      basis[:, i] *= scale / np.sqrt((i + 1) * (i + 2))
    y = basis @ f
    # Find the closest point of remainder 0: round each coordinate, then correct
    # the sum at the coordinates that were rounded furthest.
    origin = np.round(y / (d + 1)) * (d + 1)
    excess = int(round(origin.sum() / (d + 1)))
    by_distance = np.argsort(y - origin, kind="stable")  # Ascending.
    mend = by_distance[:excess] if excess > 0 else by_distance[d + 1 + excess :]
    origin[mend] -= np.sign(excess) * (d + 1)
    delta = y - origin
    ranked = np.argsort(-delta, kind="stable")  # Largest first.
    previous = 1 + (delta[ranked[-1]] - delta[ranked[0]]) / (d + 1)
    for r in range(d + 1):
      corner = origin + r
      corner[ranked[d + 1 - r :]] -= d + 1
      if r:
        previous = (delta[ranked[d - r]] - delta[ranked[d + 1 - r]]) / (d + 1)
      yield tuple(corner.astype(int)), previous

  def __call__(self, values, reverse=False):
    d = self.corners.shape[1] - 1
    rows = np.zeros((len(self.index) + 1, values.shape[1]))
    np.add.at(rows, self.corners, self.weights[..., None] * values[:, None])
    for axis in reversed(range(d + 1)) if reverse else range(d + 1):
      blurred = rows.copy()
      for key, i in self.index.items():
        for sign in (-1, 1):
          other = np.array(key) + sign
          other[axis] -= sign * (d + 1)
          blurred[i] += 0.5 * rows[self.index.get(tuple(other), -1)]
      rows = blurred
    out = np.sum(self.weights[..., None] * rows[self.corners], axis=1)
    return out / (1 + 2.0**-d)


def points(n, d, spread=2.0):
  rng = np.random.default_rng(10 * n + d)
  features = spread * rng.normal(size=(n, d))
  return features.astype(np.float32), rng.normal(size=(n, 3)).astype(np.float32)


@jax.jit
def both(features, values):
  lattice = permutohedral.build(features)
  return lattice, [
    permutohedral.gaussian_filter(lattice, values, reverse)
    for reverse in (False, True)
  ]


@pytest.mark.parametrize("n, d", [(1, 1), (300, 2), (300, 5)])
def test_lattice_is_the_published_one(n, d):
  features, values = points(n, d)
  expected = Dictionary(features.astype(np.float64))
  lattice, (forward, backward) = both(features, values)
  assert int(lattice.count) == len(expected.index)
  np.testing.assert_allclose(lattice.weights, expected.weights, atol=1e-5)
  np.testing.assert_allclose(lattice.weights.sum(axis=1), 1, atol=1e-5)
  np.testing.assert_allclose(forward, expected(values), atol=1e-4)
  np.testing.assert_allclose(backward, expected(values, True), atol=1e-4)


def test_more_points_than_a_block(monkeypatch):
  """The size of the blocks does not matter; the last one is partly full."""
  features, values = points(300, 2)
  _, expected = both(features, values)
  monkeypatch.setattr(permutohedral, "BLOCK", 64)
  afresh = jax.jit(lambda *case: both.__wrapped__(*case))
  lattice, got = afresh(features, values)
  assert lattice.after.shape[1] == 960 and 64 < lattice.count < 900
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_next_and_previous_undo_each_other():
  lattice, _ = both(*points(300, 5))
  after, before = np.asarray(lattice.after), np.asarray(lattice.before)
  count, room = int(lattice.count), after.shape[1]
  for there, back in ((after, before), (before, after)):
    for axis in range(6):
      (i,) = np.nonzero(there[axis] < room)
      assert 0 < len(i) and i.max() < count
      np.testing.assert_array_equal(back[axis, there[axis, i]], i)


def test_equal_features_share_their_points():
  features, values = points(300, 2)
  features[:] = features[0]
  features[1] = (-40, 90)
  lattice, _ = both(features, values)
  assert int(lattice.count) == 6
  assert (lattice.corners[2:] == lattice.corners[0]).all()


def test_gradient_is_the_transpose():
  """<y, K x> = <K' y, x>, and the filter is differentiable twice."""
  features, x = points(300, 5)
  y = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
  lattice, _ = both(features, x)

  def inner(x):
    return jnp.vdot(permutohedral.gaussian_filter(lattice, x), y)

  value, gradient = jax.jit(jax.value_and_grad(inner))(x)
  np.testing.assert_allclose(jnp.vdot(gradient, x), value, rtol=1e-4)
  expected = Dictionary(features.astype(np.float64))(y, reverse=True)
  np.testing.assert_allclose(gradient, expected, atol=1e-4)

  def squared(x):
    return jnp.sum(jax.grad(lambda x: inner(x) ** 2)(x))

  # d/dx sum(2 <g, x> g) = 2 g sum(g).
  np.testing.assert_allclose(
    jax.jit(jax.grad(squared))(x), 2 * gradient * gradient.sum(), rtol=1e-3
  )


def test_close_to_the_gaussian():
  """The error on a smooth field, sampled finely, is a few per cent."""
  grid = np.mgrid[:17, :17].reshape(2, -1).T.astype(np.float32) / 2
  values = np.stack(
    [np.sin(grid[:, 0]) + np.cos(0.7 * grid[:, 1]), np.ones(289)], axis=1
  ).astype(np.float32)
  kernel = np.exp(-np.square(grid[:, None] - grid[None]).sum(-1) / 2)
  _, (got, _) = both(grid, values)
  exact = kernel @ values
  error = got[:, 0] / got[:, 1] - exact[:, 0] / exact[:, 1]
  assert np.sqrt(np.square(error).mean()) < 0.05


def test_vmap():
  features, values = points(300, 2)
  stacked = np.stack([features, 2 * features]), np.stack([values] * 2)
  _, got = jax.jit(jax.vmap(both))(*stacked)
  for i in range(2):
    _, expected = both(stacked[0][i], stacked[1][i])
    np.testing.assert_allclose([g[i] for g in got], expected, atol=1e-4)


def test_limit_of_two_byte_coordinates():
  """Shorts hold features up to 32767 / (sqrt(2/3) * 3 / sqrt(2)) = 18919."""
  assert permutohedral.fits(np.array([12e3, 10e3]))
  assert not permutohedral.fits(np.array([19e3, 19e3]))
