"""Bilinear interpolation: closed forms, border rules, torch's grid_sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.bilinear import (
  interpolate,
  interpolation_matrix,
  rational_taps,
  sample_bilinear,
  taps,
)

LINE = np.array([10.0, 20.0, 40.0])
# Position, value with border "edge", value with border "zero".
POSITIONS = [
  (0.0, 10.0, 10.0),
  (0.25, 12.5, 12.5),
  (1.5, 30.0, 30.0),
  (2.0, 40.0, 40.0),
  (-0.25, 10.0, 7.5),
  (-1.0, 10.0, 0.0),
  (2.25, 40.0, 30.0),
  (3.0, 40.0, 0.0),
  (-1e30, 10.0, 0.0),
  (1e30, 40.0, 0.0),
]


@pytest.mark.parametrize("asarray", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("border", ["edge", "zero"])
def test_line_by_hand(border, asarray):
  """Gather and matrix agree, on NumPy and on JAX arrays."""
  position, edge, zero = asarray(POSITIONS).T
  at = taps(position, 3, border=border)
  want = edge if border == "edge" else zero
  assert isinstance(at.low, np.ndarray) == isinstance(position, np.ndarray)
  np.testing.assert_allclose(interpolate(asarray(LINE), at, 0), want, rtol=1e-6)
  np.testing.assert_allclose(
    interpolation_matrix(at, 3) @ LINE, want, rtol=1e-6
  )
  for index in (at.low, at.high):
    assert 0 <= index.min() and index.max() <= 2


def test_one_pixel_has_one_neighbour():
  at = taps(np.array([-2.0, 0.0, 0.4]), 1)
  np.testing.assert_array_equal(interpolation_matrix(at, 1), np.ones((3, 1)))


def test_axis_of_an_array():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
  at = taps(np.array([0.5, 2.25]), 4)
  want = np.stack(
    [(x[:, :, 0] + x[:, :, 1]) / 2, 0.75 * x[:, :, 2] + 0.25 * x[:, :, 3]], 2
  )
  np.testing.assert_allclose(interpolate(x, at, axis=2), want)


def test_part_selects_positions():
  at = taps(np.array([0.5, 1.5, 1.75]), 3)
  x = interpolate(LINE, at.part(slice(1, 3)), 0)
  np.testing.assert_allclose(x, [30, 35])


def test_rational_positions_are_exact():
  """Position 2^20 + 1/8 is no float32, but its taps are exact."""
  numerator = jnp.asarray([8 * 2**20 + 1, -3, 5])
  at = rational_taps(numerator, 8, 2**21)
  np.testing.assert_array_equal(at.low, [2**20, 0, 0])
  np.testing.assert_array_equal(at.high, [2**20 + 1, 0, 1])
  np.testing.assert_array_equal(at.high_weight, np.array([1, 5, 5]) / 8)
  np.testing.assert_array_equal(at.low_weight, np.array([7, 3, 3]) / 8)


def test_border_is_checked():
  with pytest.raises(ValueError, match="'edges': expected .*'edge', 'zero'"):
    taps(np.zeros(1), 3, border="edges")


def test_plane_is_reproduced_at_any_position():
  """x = 2 r + 3 s + 1 is bilinear, so sampling evaluates it."""
  r, s = np.indices((6, 8)).astype(np.float32)
  x = jnp.asarray(2 * r + 3 * s + 1)[..., None]
  rng = np.random.default_rng(0)
  row = jnp.asarray(rng.uniform(0, 5, (3, 4)), jnp.float32)
  column = jnp.asarray(rng.uniform(0, 7, (3, 4)), jnp.float32)
  for border in ("edge", "zero"):
    y = sample_bilinear(x, row, column, border=border)
    np.testing.assert_allclose(y[..., 0], 2 * row + 3 * column + 1, rtol=1e-6)
  slopes = jax.grad(
    lambda at: sample_bilinear(x, *at, border="edge").sum(), argnums=0
  )((row, column))
  np.testing.assert_allclose(slopes[0], np.full((3, 4), 2), rtol=1e-5)
  np.testing.assert_allclose(slopes[1], np.full((3, 4), 3), rtol=1e-5)


def test_size_bounds_the_valid_part():
  """Pixels beyond `size` are never read, also if it is traced."""
  x = jnp.full((5, 6, 1), jnp.nan).at[:3, :2].set(7.0)
  at = jnp.linspace(-3.0, 9.0, 25)

  @functools.partial(jax.jit, static_argnames="border")
  def sample(size, border):
    return sample_bilinear(x, at, at, size=size, border=border)

  size = jnp.asarray([3, 2])
  np.testing.assert_array_equal(sample(size, "edge"), np.full((25, 1), 7.0))
  outside = np.asarray((at <= -1) | (at >= 2))
  zero = np.asarray(sample(size, "zero")[:, 0])
  assert np.isfinite(zero).all() and (zero[outside] == 0).all()


def test_bytes_are_interpolated_as_floats():
  x = jnp.asarray([[[0], [255]]], jnp.uint8)
  y = sample_bilinear(x, jnp.zeros(1), jnp.full(1, 0.5), border="edge")
  assert y.dtype == jnp.float32 and float(y[0, 0]) == 127.5


@pytest.mark.torch
@pytest.mark.parametrize(
  "border, padding_mode", [("edge", "border"), ("zero", "zeros")]
)
def test_equals_torch_grid_sample(border, padding_mode):
  """Compares values and all gradients."""
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(0)
  h, w = 5, 7
  x = rng.normal(size=(h, w, 3)).astype(np.float32)
  row = rng.uniform(-2, h + 1, (4, 6)).astype(np.float32)
  column = rng.uniform(-2, w + 1, (4, 6)).astype(np.float32)
  weight = rng.normal(size=(4, 6, 3)).astype(np.float32)
  grid = np.stack([2 * column / (w - 1) - 1, 2 * row / (h - 1) - 1], axis=-1)
  t = torch.from_numpy(x.transpose(2, 0, 1))[None].requires_grad_()
  g = torch.from_numpy(grid)[None].requires_grad_()
  want = torch.nn.functional.grid_sample(
    t, g, padding_mode=padding_mode, align_corners=True
  )
  (want * torch.from_numpy(weight.transpose(2, 0, 1))).sum().backward()
  got, back = jax.vjp(
    functools.partial(sample_bilinear, border=border),
    *map(jnp.asarray, (x, row, column)),
  )
  dx, drow, dcolumn = back(jnp.asarray(weight))
  np.testing.assert_allclose(
    got, want.detach().numpy()[0].transpose(1, 2, 0), atol=1e-5
  )
  np.testing.assert_allclose(
    dx, t.grad.numpy()[0].transpose(1, 2, 0), atol=1e-4
  )
  dgrid = g.grad.numpy()[0]
  np.testing.assert_allclose(dcolumn * (w - 1) / 2, dgrid[..., 0], atol=1e-3)
  np.testing.assert_allclose(drow * (h - 1) / 2, dgrid[..., 1], atol=1e-3)
