"""Pooling: published bins and sizes, and windows one by one."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.pool import (
  adaptive_avg_pool,
  adaptive_matrix,
  avg_pool,
  max_pool,
  pool_padding,
  pooled_size,
)

# Rows [start, stop) of torch.nn.AdaptiveAvgPool2d's bins, by (size, bins).
BINS = {
  (64, 6): [(0, 11), (10, 22), (21, 32), (32, 43), (42, 54), (53, 64)],
  (65, 6): [(0, 11), (10, 22), (21, 33), (32, 44), (43, 55), (54, 65)],
  (33, 6): [(0, 6), (5, 11), (11, 17), (16, 22), (22, 28), (27, 33)],
  (60, 6): [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60)],
  (90, 3): [(0, 30), (30, 60), (60, 90)],
  (5, 1): [(0, 5)],
}
# (size, window, stride, pad, ceil_mode, length) by PyTorch's rule.
LENGTHS = [
  (8, 3, 2, 0, True, 4),
  (8, 3, 2, 0, False, 3),
  (112, 3, 2, 1, True, 57),
  (112, 3, 2, 1, False, 56),
  (237, 3, 2, 1, True, 119),  # PSPNet at 473, after the stem.
  (237, 3, 2, 1, False, 119),
  (375, 2, 2, 0, True, 188),
  (375, 2, 2, 0, False, 187),
  (28, 3, 1, 1, True, 28),
  # A window that would start inside the right padding is dropped.
  (5, 2, 2, 1, True, 3),
  (3, 2, 3, 1, True, 2),
  (4, 2, 2, 1, True, 3),
]
SETTINGS = [
  # (size, window, stride, padding, ceil_mode).
  ((8, 8), 2, 2, 0, False),
  ((9, 7), 2, 2, 0, True),
  ((9, 7), 2, 2, 0, False),
  ((8, 11), 3, 2, 1, False),
  ((8, 11), 3, 2, 1, True),
  ((10, 13), 3, 2, 0, True),
  ((7, 6), 3, 1, 1, True),
  ((5, 4), 2, 2, 1, True),
  ((11, 5), 2, 3, 1, True),
]


def _distinct(size, channels=3, seed=0):
  """Returns distinct values, so that every maximum is a single pixel."""
  rng = np.random.default_rng(seed)
  shape = (2, *size, channels)
  return rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)


@pytest.mark.parametrize(("size", "bins"), BINS)
def test_adaptive_bins_overlap_as_published(size, bins):
  matrix = adaptive_matrix(size, bins)
  for row, (start, stop) in zip(matrix, BINS[size, bins], strict=True):
    want = np.zeros(size)
    want[start:stop] = 1 / (stop - start)
    np.testing.assert_allclose(row, want, atol=1e-7)


def test_adaptive_pool_averages_its_bins():
  x = _distinct((33, 64))
  y = adaptive_avg_pool(jnp.asarray(x), 6)
  assert y.shape == (2, 6, 6, 3)
  rows, columns = BINS[33, 6], BINS[64, 6]
  for i, j in itertools.product(range(6), range(6)):
    part = x[:, slice(*rows[i]), slice(*columns[j])]
    np.testing.assert_allclose(y[:, i, j], part.mean((1, 2)), rtol=1e-5)


def test_average_pool_counts_its_padding_as_zeros():
  y = avg_pool(jnp.ones((1, 3, 4, 1)), 3, 1, padding=1)
  seen = np.outer([2, 3, 2], [2, 3, 3, 2])
  np.testing.assert_allclose(y[0, ..., 0], seen / 9, rtol=1e-6)


def test_more_bins_than_pixels_repeat_them():
  x = _distinct((2, 3))
  y = adaptive_avg_pool(jnp.asarray(x), 6)
  np.testing.assert_allclose(y, x.repeat(3, 1).repeat(2, 2), rtol=1e-6)


@pytest.mark.parametrize("case", LENGTHS)
def test_lengths(case):
  size, window, stride, pad, ceil_mode, want = case
  assert pooled_size(size, window, stride, pad, ceil_mode) == want
  before, after = pool_padding(size, window, stride, pad, ceil_mode)
  assert before == pad
  assert (size + before + after - window) // stride + 1 == want


@pytest.mark.parametrize("setting", SETTINGS)
def test_max_pool_takes_each_window(setting):
  size, window, stride, padding, ceil_mode = setting
  x = _distinct(size)
  y = np.asarray(
    max_pool(
      jnp.asarray(x), window, stride, padding=padding, ceil_mode=ceil_mode
    )
  )
  for i, j in np.ndindex(y.shape[1:3]):
    (top, bottom), (left, right) = (
      (max(a * stride - padding, 0), a * stride - padding + window)
      for a in (i, j)
    )
    part = x[:, top:bottom, left:right]
    np.testing.assert_array_equal(y[:, i, j], part.max((1, 2)))


def test_padding_never_wins():
  x = jnp.full((1, 4, 4, 1), -3.0)
  assert (max_pool(x, 3, 2, padding=1) == -3.0).all()


def test_stride_defaults_to_the_window():
  x = jnp.asarray(_distinct((6, 6)))
  np.testing.assert_array_equal(max_pool(x, 3), max_pool(x, 3, 3))


def test_gradient_goes_to_the_maximum_alone():
  x = _distinct((6, 8), channels=1)
  grad = jax.grad(lambda x: max_pool(x, 2).sum())(jnp.asarray(x))
  want = np.zeros_like(x)
  for n, i, j in itertools.product(range(2), range(3), range(4)):
    part = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0]
    a, b = np.unravel_index(part.argmax(), (2, 2))
    want[n, 2 * i + a, 2 * j + b, 0] = 1
  np.testing.assert_array_equal(grad, want)


@pytest.mark.parametrize("setting", SETTINGS)
def test_values_and_gradients_equal_xlas_window_also_at_ties(setting):
  size, window, stride, padding, ceil_mode = setting
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.integers(0, 3, (2, *size, 3)), jnp.float32)
  pads = tuple(
    pool_padding(n, window, stride, padding, ceil_mode) for n in size
  )

  def theirs(x):
    return nn.max_pool(x, (window, window), (stride, stride), pads)

  def ours(x):
    return max_pool(x, window, stride, padding=padding, ceil_mode=ceil_mode)

  shape = jax.eval_shape(theirs, x).shape
  pull = jnp.asarray(rng.integers(-9, 9, shape), jnp.float32)

  @jax.jit
  def value_and_gradient(x):
    results = []
    for pool in (theirs, ours):
      value, pull_back = jax.vjp(pool, x)
      results.append((value, pull_back(pull)[0]))
    return results

  (want, want_gradient), (got, gradient) = value_and_gradient(x)
  np.testing.assert_array_equal(got, want)
  np.testing.assert_array_equal(gradient, want_gradient)


def test_a_nan_is_passed_on():
  x = jnp.ones((1, 4, 4, 1)).at[0, 1, 0, 0].set(jnp.nan)
  y = max_pool(x, 2)
  assert jnp.isnan(y[0, 0, 0, 0]) and (jnp.isnan(y).sum() == 1)


@pytest.mark.torch
@pytest.mark.parametrize("setting", SETTINGS)
def test_max_pool_equals_torch(setting):
  torch = pytest.importorskip("torch")
  size, window, stride, padding, ceil_mode = setting
  if 2 * padding > window:
    pytest.skip("PyTorch wants padding of at most half the window")
  x = _distinct(size)
  t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
  want = torch.nn.MaxPool2d(window, stride, padding, ceil_mode=ceil_mode)(t)
  weight = np.random.default_rng(1).standard_normal(want.shape)
  weight = weight.astype(np.float32)
  (want * torch.from_numpy(weight)).sum().backward()
  got, back = jax.vjp(
    lambda x: max_pool(x, window, stride, padding=padding, ceil_mode=ceil_mode),
    jnp.asarray(x),
  )
  np.testing.assert_array_equal(
    got, want.detach().numpy().transpose(0, 2, 3, 1)
  )
  np.testing.assert_allclose(
    back(jnp.asarray(weight.transpose(0, 2, 3, 1)))[0],
    t.grad.numpy().transpose(0, 2, 3, 1),
    atol=1e-6,
  )


@pytest.mark.torch
@pytest.mark.parametrize("size", [(33, 60), (64, 65), (90, 97), (5, 4)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_adaptive_pool_equals_torch(size, bins):
  torch = pytest.importorskip("torch")
  x = np.random.default_rng(0).standard_normal((2, *size, 3))
  x = x.astype(np.float32)
  t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
  want = torch.nn.AdaptiveAvgPool2d(bins)(t)
  (want**2).sum().backward()
  got, back = jax.vjp(lambda x: adaptive_avg_pool(x, bins), jnp.asarray(x))
  np.testing.assert_allclose(
    got, want.detach().numpy().transpose(0, 2, 3, 1), atol=1e-6
  )
  np.testing.assert_allclose(
    back(2 * got)[0], t.grad.numpy().transpose(0, 2, 3, 1), atol=1e-6
  )
