"""Pooling with indices, and unpooling by indices and by transposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.pool import (
  avg_pool,
  max_pool,
  max_pool_with_indices,
  max_unpool,
  transpose_pool,
)

# (window, stride, padding, ceil_mode).
POOLS = [
  (2, 2, 0, False),
  (2, 2, 0, True),
  (3, 2, 1, False),
  (3, 2, 0, True),
  (3, 2, 1, True),
  (3, 1, 1, True),
  (3, 3, 1, False),
]
SIZES = [(8, 8), (7, 10), (9, 5)]


def _image(size, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((2, *size, 3), np.float32)


def test_indices_by_hand():
  """Indices are flat in the 3 x 4 plane and name the first maximum."""
  x = jnp.asarray([[1, 5, 2, 2], [4, 5, 2, 2], [7, 0, 0, 9]], jnp.float32)
  x = x[None, :, :, None]
  values, indices = max_pool_with_indices(x, 2)
  np.testing.assert_array_equal(values[0, :, :, 0], [[5, 2]])
  np.testing.assert_array_equal(indices[0, :, :, 0], [[1, 2]])
  values, indices = max_pool_with_indices(x, 2, ceil_mode=True)
  np.testing.assert_array_equal(values[0, :, :, 0], [[5, 2], [7, 9]])
  np.testing.assert_array_equal(indices[0, :, :, 0], [[1, 2], [8, 11]])


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("size", SIZES)
def test_values_are_max_pool_and_indices_point_at_them(pool, size):
  window, stride, padding, ceil_mode = pool
  x = _image(size)
  options = dict(padding=padding, ceil_mode=ceil_mode)

  @jax.jit
  def both(x):
    pooled = max_pool(x, window, stride, **options)
    return pooled, *max_pool_with_indices(x, window, stride, **options)

  pooled, values, indices = both(x)
  np.testing.assert_array_equal(values, pooled)
  flat = x.reshape(2, -1, 3)
  picked = np.take_along_axis(
    flat, np.asarray(indices).reshape(2, -1, 3), axis=1
  )
  np.testing.assert_array_equal(picked.reshape(values.shape), values)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_unpooling_without_scatter_is_the_same(size, ceil_mode):
  x = jnp.asarray(_image(size))
  values, indices = max_pool_with_indices(x, 2, ceil_mode=ceil_mode)
  scattered = max_unpool(values, indices, size)
  np.testing.assert_array_equal(
    max_unpool(values, indices, size, window=2), scattered
  )
  # The result holds exactly the maxima, at their positions.
  np.testing.assert_array_equal(scattered, jnp.where(scattered == 0, 0, x))
  assert np.count_nonzero(scattered) == values.size


def test_unpooling_is_linear_and_its_gradient_gathers():
  x = jnp.asarray(_image((6, 6)))
  values, indices = max_pool_with_indices(x, 2)
  g = jnp.asarray(_image((6, 6), seed=1))
  expected = np.take_along_axis(
    np.asarray(g).reshape(2, -1, 3), np.asarray(indices).reshape(2, -1, 3), 1
  ).reshape(values.shape)
  for window in (None, 2):
    _, vjp = jax.vjp(
      lambda y, w=window: max_unpool(y, indices, (6, 6), window=w), values
    )
    np.testing.assert_allclose(vjp(g)[0], expected)


def test_transpose_pool_adds_where_windows_overlap():
  """The 9 in the middle is the maximum of all four 3x3 windows."""
  x = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(9.0)
  y = jnp.asarray([[1, 2], [3, 4]], jnp.float32)[None, :, :, None]
  result = transpose_pool(lambda a: max_pool(a, 3, 2), x, y)
  expected = np.zeros((5, 5))
  expected[2, 2] = 10
  np.testing.assert_array_equal(result[0, :, :, 0], expected)


def test_transpose_pool_is_unpooling_where_windows_do_not_overlap():
  x = jnp.asarray(_image((7, 9)))
  y = jnp.asarray(_image((4, 5), seed=1))
  _, indices = max_pool_with_indices(x, 2, ceil_mode=True)
  np.testing.assert_allclose(
    transpose_pool(lambda a: max_pool(a, 2, ceil_mode=True), x, y),
    max_unpool(y, indices, (7, 9)),
  )


def test_transpose_of_average_pooling_spreads_evenly():
  """Each value is spread over the four pixels of its window."""
  x = jnp.asarray(_image((4, 6)))
  y = jnp.asarray(_image((2, 3), seed=1))
  np.testing.assert_allclose(
    transpose_pool(lambda a: avg_pool(a, 2), x, y),
    y.repeat(2, axis=1).repeat(2, axis=2) / 4,
    rtol=1e-6,
  )


def test_gradient_goes_to_the_indexed_pixel():
  x = jnp.asarray(_image((7, 7)))

  def total(pool):
    return jax.grad(lambda a: jnp.sum(pool(a) ** 2))(x)

  np.testing.assert_allclose(
    total(lambda a: max_pool_with_indices(a, 3, 2, padding=1)[0]),
    total(lambda a: max_pool(a, 3, 2, padding=1)),
    rtol=1e-6,
  )


@pytest.mark.torch
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_torch(pool, size):
  torch = pytest.importorskip("torch")
  functional = torch.nn.functional
  window, stride, padding, ceil_mode = pool
  # Whole numbers give ties.
  x = np.round(_image(size) * 2)
  values, indices = max_pool_with_indices(
    jnp.asarray(x), window, stride, padding=padding, ceil_mode=ceil_mode
  )
  chw = torch.from_numpy(x.transpose(0, 3, 1, 2))
  expected, places = functional.max_pool2d(
    chw, window, stride, padding, ceil_mode=ceil_mode, return_indices=True
  )
  np.testing.assert_array_equal(values, expected.permute(0, 2, 3, 1))
  np.testing.assert_array_equal(indices, places.permute(0, 2, 3, 1))
  # The values that overlapping windows place at one pixel are equal, so their
  # order does not matter. MaxUnpool2d refuses some of these sizes, so torch
  # scatters here.
  plane = torch.zeros(2, 3, size[0] * size[1])
  plane.scatter_(2, places.flatten(2), expected.flatten(2))
  unpooled = plane.reshape(2, 3, *size).permute(0, 2, 3, 1)
  np.testing.assert_array_equal(max_unpool(values, indices, size), unpooled)


@pytest.mark.torch
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_unpooling_equals_torch(size, ceil_mode):
  torch = pytest.importorskip("torch")
  x = torch.from_numpy(_image(size).transpose(0, 3, 1, 2))
  values, places = torch.nn.functional.max_pool2d(
    x, 2, ceil_mode=ceil_mode, return_indices=True
  )
  unpool = torch.nn.MaxUnpool2d(2)
  default = tuple(2 * side for side in values.shape[2:])
  # Torch refuses the default size if floor-mode pooling dropped a row.
  for shape in {size, default if ceil_mode else size}:
    expected = unpool(
      values, places, output_size=None if shape == default else shape
    )
    y = max_unpool(
      jnp.asarray(values.permute(0, 2, 3, 1)),
      jnp.asarray(places.permute(0, 2, 3, 1), jnp.int32),
      shape,
    )
    np.testing.assert_array_equal(y, expected.permute(0, 2, 3, 1))
