"""Resizing: PyTorch's documented tables, ramps, other implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.resize import (
  bilinear_matrix,
  resample_bilinear,
  resize_bilinear,
  resize_nearest,
  zoom_bilinear,
)

# [[1, 2], [3, 4]] enlarged twice, from the documentation of torch.nn.Upsample.
DOUBLED = {
  False: [
    [1.0, 1.25, 1.75, 2.0],
    [1.5, 1.75, 2.25, 2.5],
    [2.5, 2.75, 3.25, 3.5],
    [3.0, 3.25, 3.75, 4.0],
  ],
  True: [
    [1.0, 4 / 3, 5 / 3, 2.0],
    [5 / 3, 2.0, 7 / 3, 8 / 3],
    [7 / 3, 8 / 3, 3.0, 10 / 3],
    [3.0, 10 / 3, 11 / 3, 4.0],
  ],
}
# Enlarging, shrinking, odd sizes, fractional factors, single rows and columns.
SIZES = [
  ((8, 8), (64, 64)),
  ((60, 7), (473, 9)),
  ((5, 7), (11, 9)),
  ((11, 9), (5, 7)),
  ((64, 48), (17, 23)),
  ((1, 4), (6, 9)),
  ((4, 6), (1, 1)),
  ((3, 3), (3, 7)),
]


def _image(size, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((2, *size, channels)).astype(np.float32)


@pytest.mark.parametrize("align_corners", [False, True])
def test_bilinear_equals_the_documented_table(align_corners):
  x = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
  y = resize_bilinear(x, (4, 4), align_corners=align_corners)
  np.testing.assert_allclose(
    y[0, :, :, 0], DOUBLED[align_corners], rtol=0, atol=1e-6
  )


@pytest.mark.parametrize("sizes", [(2, 9), (5, 33), (33, 5), (60, 473), (7, 1)])
def test_align_corners_maps_a_ramp_onto_a_ramp(sizes):
  before, after = sizes
  matrix = bilinear_matrix(before, after, align_corners=True)
  np.testing.assert_allclose(
    matrix @ np.arange(before), np.linspace(0, before - 1, after), atol=1e-9
  )


@pytest.mark.parametrize("sizes", [(2, 9), (5, 33), (33, 5), (60, 473), (7, 1)])
def test_half_pixel_ramp_is_shifted_and_clamped(sizes):
  before, after = sizes
  matrix = bilinear_matrix(before, after, align_corners=False)
  source = (np.arange(after) + 0.5) * before / after - 0.5
  np.testing.assert_allclose(
    matrix @ np.arange(before), np.clip(source, 0, before - 1), atol=1e-9
  )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", [(1, 5), (5, 1), (4, 4), (6, 13), (13, 6)])
def test_weights_are_an_average_of_at_most_two(sizes, align_corners):
  matrix = bilinear_matrix(*sizes, align_corners=align_corners)
  np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
  assert matrix.min() >= 0
  assert (matrix > 0).sum(axis=1).max() <= 2


@pytest.mark.parametrize(("size", "out"), SIZES)
def test_half_pixel_equals_jax_image_without_antialias(size, out):
  x = _image(size)
  want = jax.image.resize(x, (2, *out, 3), "bilinear", antialias=False)
  got = resize_bilinear(jnp.asarray(x), out, align_corners=False)
  # JAX rounds coordinates to float32; jaxseg computes them in float64.
  np.testing.assert_allclose(got, want, atol=3e-4)


@pytest.mark.parametrize(
  ("size", "out"), [s for s in SIZES if min(*s[0], *s[1]) > 1]
)
def test_align_corners_equals_scale_and_translate(size, out):
  x = _image(size)
  scale = np.array([(b - 1) / (a - 1) for a, b in zip(size, out, strict=True)])

  @jax.jit
  def both(x):
    want = jax.image.scale_and_translate(
      x,
      (2, *out, 3),
      (1, 2),
      jnp.asarray(scale, jnp.float32),
      jnp.asarray(0.5 - 0.5 * scale, jnp.float32),
      method="linear",
      antialias=False,
    )
    return want, resize_bilinear(x, out, align_corners=True)

  want, got = both(x)
  # JAX rounds coordinates to float32; jaxseg computes them in float64.
  np.testing.assert_allclose(got, want, atol=3e-4)


@pytest.mark.parametrize("align_corners", [False, True])
def test_one_pixel_fills_the_plane(align_corners):
  x = jnp.asarray(_image((1, 1)))
  y = resize_bilinear(x, (5, 7), align_corners=align_corners)
  assert y.shape == (2, 5, 7, 3)
  np.testing.assert_array_equal(y, np.broadcast_to(x, y.shape))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bilinear_keeps_the_dtype(dtype):
  x = jnp.asarray(_image((4, 5)), dtype)
  assert resize_bilinear(x, (9, 9), align_corners=True).dtype == x.dtype


def test_nearest_takes_the_floor():
  x = jnp.arange(4).reshape(1, 4, 1, 1)
  # The indices are floor(i 4 / 6) and floor(i 4 / 3).
  assert resize_nearest(x, (6, 1)).ravel().tolist() == [0, 0, 1, 2, 2, 3]
  assert resize_nearest(x, (3, 1)).ravel().tolist() == [0, 1, 2]


def test_nearest_of_labels_invents_nothing():
  rng = np.random.default_rng(0)
  label = rng.choice(np.array([0, 7, 255], np.uint8), (2, 13, 9))
  out = resize_nearest(jnp.asarray(label), (31, 5))
  assert out.shape == (2, 31, 5) and out.dtype == jnp.uint8
  assert set(np.unique(out).tolist()) <= {0, 7, 255}


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["nearest", "half pixel", "align corners"])
@pytest.mark.parametrize(("size", "out"), SIZES)
def test_values_and_gradients_equal_torch(size, out, mode):
  torch = pytest.importorskip("torch")
  x, weight = _image(size), _image(out, seed=1)
  if mode == "nearest":
    fields, resize = {"mode": "nearest"}, resize_nearest
  else:
    align = mode == "align corners"
    fields = {"mode": "bilinear", "align_corners": align}

    def resize(x, out):
      return resize_bilinear(x, out, align_corners=align)

  t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
  want = torch.nn.functional.interpolate(t, out, **fields)
  (
    want * torch.from_numpy(weight.transpose(0, 3, 1, 2).copy())
  ).sum().backward()
  got, back = jax.vjp(lambda x: resize(x, out), jnp.asarray(x))
  np.testing.assert_allclose(
    got, want.detach().numpy().transpose(0, 2, 3, 1), atol=1e-4
  )
  np.testing.assert_allclose(
    back(jnp.asarray(weight))[0],
    t.grad.numpy().transpose(0, 2, 3, 1),
    rtol=1e-4,
    atol=1e-3,
  )


@pytest.mark.parametrize("size", [(9, 17), (7, 15), (12, 20)])
def test_zoom_keeps_every_pixel_on_its_multiple(size):
  """y[4 i] = x[i], linear between, cropped or continued by the last pixel."""
  x = np.random.default_rng(0).random((2, 3, 5, 4)).astype(np.float32)
  y = np.asarray(zoom_bilinear(jnp.asarray(x), 4, size))
  rows, columns = (
    np.minimum(np.arange(n) / 4, m - 1)
    for n, m in zip(size, x.shape[1:3], strict=True)
  )
  for n, c in np.ndindex(2, 4):
    lines = [np.interp(columns, np.arange(5), row) for row in x[n, :, :, c]]
    want = [np.interp(rows, np.arange(3), line) for line in np.array(lines).T]
    np.testing.assert_allclose(y[n, :, :, c].T, want, atol=1e-6)


def test_grid_of_traced_positions():
  """Reading at the positions of a resize gives the resize; edges repeat."""
  x = jnp.asarray(_image((6, 5)))
  rows = jnp.linspace(-4.0, 9.0, 14)  # Steps of one pixel.
  columns = jnp.linspace(0.0, 4.0, 9)
  y = jax.jit(resample_bilinear)(x, rows, columns)
  want = resize_bilinear(x, (6, 9), align_corners=True)
  inside = np.clip(np.arange(-4, 10), 0, 5)
  np.testing.assert_allclose(y, want[:, inside], atol=1e-5)
  np.testing.assert_allclose(resample_bilinear(x[0], rows, columns), y[0])


def test_zoom_is_align_corners_on_its_own_size():
  x = np.random.default_rng(1).random((1, 6, 4, 3)).astype(np.float32)
  zoomed = zoom_bilinear(jnp.asarray(x), 8, (41, 25))
  want = resize_bilinear(jnp.asarray(x), (41, 25), align_corners=True)
  np.testing.assert_allclose(zoomed, want, atol=1e-6)
