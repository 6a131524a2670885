"""Bed of nails, pixel shuffle and resize-convolution against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.upsample import ResizeConv, bed_of_nails, pixel_shuffle


def test_bed_of_nails_by_hand():
  x = jnp.asarray([[1, 2], [3, 4]], jnp.float32)[None, :, :, None]
  expected = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
  np.testing.assert_array_equal(bed_of_nails(x, 2)[0, :, :, 0], expected)


def test_bed_of_nails_undoes_subsampling():
  x = jax.random.normal(jax.random.key(0), (2, 5, 3, 4))
  y = bed_of_nails(x, 3)
  assert y.shape == (2, 15, 9, 4)
  np.testing.assert_array_equal(y[:, ::3, ::3], x)
  assert np.count_nonzero(y) == x.size


def test_pixel_shuffle_by_hand():
  """Nine channels of a pixel become a 3x3 cell in reading order."""
  x = jnp.arange(18, dtype=jnp.float32).reshape(1, 1, 1, 18)
  y = pixel_shuffle(x, 3)
  np.testing.assert_array_equal(y[0, :, :, 0], np.arange(9).reshape(3, 3))
  np.testing.assert_array_equal(y[0, :, :, 1], np.arange(9, 18).reshape(3, 3))


def test_pixel_shuffle_refuses_incomplete_cells():
  with pytest.raises(ValueError, match="8 channels.* 9$"):
    pixel_shuffle(jnp.zeros((1, 2, 2, 8)), 3)


@pytest.mark.parametrize(
  ("method", "expected"),
  [
    ("nearest", [1, 1, 1, 2, 2, 2, 4, 4, 4]),
    # Positions (i + 0.5) / 3 - 0.5, clamped to the line.
    ("bilinear", [1, 1, 4 / 3, 5 / 3, 2, 8 / 3, 10 / 3, 4, 4]),
  ],
)
def test_resize_conv_resizes_first(method, expected):
  """With a kernel that copies, the result is the resized line."""
  x = jnp.asarray([1.0, 2.0, 4.0])[None, None, :, None]
  module = ResizeConv(1, 3, factor=3, method=method)
  variables = module.init(jax.random.key(0), x)
  copy = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
  variables["params"]["conv"]["kernel"] = copy
  y = module.apply(variables, x)
  assert y.shape == (1, 3, 9, 1)
  for row in y[0, :, :, 0]:
    np.testing.assert_allclose(row, expected, rtol=1e-6)


def test_resize_conv_names_its_methods():
  with pytest.raises(ValueError, match="'cubic'.*'nearest' or 'bilinear'"):
    ResizeConv(1, method="cubic").init(
      jax.random.key(0), jnp.zeros((1, 2, 2, 1))
    )


def test_resize_conv_has_no_checkerboard():
  """Any kernel maps a constant to a constant, away from the border."""
  module = ResizeConv(2, 3, factor=2)
  x = jnp.ones((1, 4, 4, 3))
  y, _ = module.init_with_output(jax.random.key(3), x)
  inside = y[:, 1:-1, 1:-1]
  np.testing.assert_allclose(inside, inside[:, :1, :1] + 0 * inside, rtol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_shuffle_equals_torch(factor):
  torch = pytest.importorskip("torch")
  x = np.random.default_rng(0).standard_normal((2, 5, 3, 4 * factor**2))
  expected = torch.nn.PixelShuffle(factor)(
    torch.from_numpy(x.transpose(0, 3, 1, 2))
  )
  np.testing.assert_allclose(
    pixel_shuffle(jnp.asarray(x), factor),
    expected.numpy().transpose(0, 2, 3, 1),
    rtol=1e-6,
  )
