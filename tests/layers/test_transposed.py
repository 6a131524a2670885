"""Transposed convolution: sizes, stamps, torch's operator, bilinear kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.resize import resize_bilinear
from jaxseg.layers.transposed import (
  ConvTranspose,
  _over_zeros,
  _phases,
  bilinear_conv_transpose,
  bilinear_init,
  bilinear_kernel,
  conv_transpose,
)

# (kernel, strides, padding, output_padding, dilation, groups).
SETTINGS = [
  (2, 2, 0, 0, 1, 1),
  (3, 2, 0, 0, 1, 1),
  (3, 2, 1, 1, 1, 1),
  (4, 2, 1, 0, 1, 2),
  (3, 1, 1, 0, 1, 4),
  (3, 3, 1, 2, 2, 2),
  (5, 2, 3, 1, 1, 1),
  (16, 8, 4, 0, 1, 4),
]


def _inputs(k, groups, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((2, 5, 7, 4), np.float32)
  kernel = rng.standard_normal((k, k, 4, 8 // groups), np.float32)
  return x, kernel


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_pixel_stamps_its_kernel(setting):
  """Equals the sum of stamps of arXiv:1603.07285, Sec. 4."""
  k, s, p, extra, d, groups = setting
  x, kernel = _inputs(k, groups)
  size = [(i - 1) * s + d * (k - 1) + 1 + extra for i in x.shape[1:3]]
  out = np.zeros((2, *size, 8))
  for g in range(groups):
    ins = slice(g * 4 // groups, (g + 1) * 4 // groups)
    outs = slice(g * 8 // groups, (g + 1) * 8 // groups)
    for i, j in np.ndindex(x.shape[1:3]):
      for a, b in np.ndindex(k, k):
        out[:, i * s + a * d, j * s + b * d, outs] += (
          x[:, i, j, ins] @ kernel[a, b, ins]
        )
  out = out[:, p : size[0] - p, p : size[1] - p]
  y = conv_transpose(
    jnp.asarray(x),
    jnp.asarray(kernel),
    strides=s,
    padding=p,
    output_padding=extra,
    dilation=d,
    groups=groups,
  )
  assert y.shape == out.shape
  np.testing.assert_allclose(y, out, atol=1e-4)


def test_size_law_of_the_upsampling_settings():
  """o = (i - 1) s + k - 2 p + output_padding (arXiv:1603.07285, Rel. 14)."""
  x = jnp.zeros((1, 7, 9, 1))
  for k, s, p, expected in [
    (4, 2, 1, (14, 18)),
    (16, 8, 4, (56, 72)),
    (64, 32, 0, (256, 320)),
    (3, 2, 0, (15, 19)),
  ]:
    y = conv_transpose(x, jnp.zeros((k, k, 1, 1)), strides=s, padding=p)
    assert y.shape[1:3] == expected


def test_output_padding_of_rows_and_columns():
  x = jnp.ones((1, 3, 3, 1))
  kernel = jnp.ones((2, 2, 1, 1))
  y = conv_transpose(x, kernel, strides=2, output_padding=(1, 0))
  assert y.shape == (1, 7, 6, 1)
  np.testing.assert_array_equal(y[0, 6], 0)


def test_it_is_the_transpose_of_the_convolution():
  """<conv(u), x> = <u, conv_transpose(x)> for the same kernel."""
  x, kernel = _inputs(3, 2)
  y = conv_transpose(
    jnp.asarray(x), jnp.asarray(kernel), strides=2, padding=1, groups=2
  )
  u = np.random.default_rng(1).standard_normal(y.shape, np.float32)
  # The forward convolution maps the 8 channels of the stamps to 4.
  forward = kernel.reshape(3, 3, 2, 2, 4).transpose(0, 1, 4, 2, 3)
  v = jax.lax.conv_general_dilated(
    jnp.asarray(u),
    jnp.asarray(forward.reshape(3, 3, 4, 4)),
    (2, 2),
    [(1, 1), (1, 1)],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=2,
  )
  np.testing.assert_allclose(np.vdot(v, x), np.vdot(u, y), rtol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("setting", SETTINGS)
def test_equals_torch(setting):
  torch = pytest.importorskip("torch")
  k, s, p, extra, d, groups = setting
  x, kernel = _inputs(k, groups)
  layer = torch.nn.ConvTranspose2d(4, 8, k, s, p, extra, groups, dilation=d)
  with torch.no_grad():
    layer.weight.copy_(torch.from_numpy(kernel.transpose(2, 3, 0, 1)))
    expected = layer(torch.from_numpy(x.transpose(0, 3, 1, 2)))
  module = ConvTranspose(
    8, k, s, padding=p, output_padding=extra, dilation=d, groups=groups
  )
  params = {"kernel": kernel, "bias": layer.bias.detach().numpy()}
  y = module.apply({"params": params}, jnp.asarray(x))
  expected = expected.numpy().transpose(0, 2, 3, 1)
  assert y.shape == expected.shape
  np.testing.assert_allclose(y, expected, atol=2e-5 * np.abs(expected).max())


def test_bilinear_kernels_of_the_papers():
  """Caffe's filler by hand, for sizes 3 and 4 and FCN's 16 and 64."""
  np.testing.assert_allclose(bilinear_kernel(3)[1], [0.5, 1, 0.5])
  np.testing.assert_allclose(
    bilinear_kernel(4), np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16
  )
  for size, total in [(16, 8), (63, 32), (64, 32)]:
    kernel = bilinear_kernel(size)
    assert kernel.sum() == pytest.approx(total**2)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1])


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_bilinear_stamps_interpolate_away_from_the_border(factor):
  """Inside, the result is bilinear; the border fades without neighbours."""
  x = jax.random.normal(jax.random.key(0), (1, 6, 5, 3))
  size = 2 * factor - factor % 2
  pad = -(-(factor - 1) // 2)
  shape = (size, size, 3, 1)
  depthwise = bilinear_init(jax.random.key(0), shape)
  y = conv_transpose(x, depthwise, strides=factor, padding=pad, groups=3)
  expected = resize_bilinear(x, (6 * factor, 5 * factor), align_corners=False)
  assert y.shape == expected.shape
  inner = slice(factor, -factor)
  np.testing.assert_allclose(
    y[:, inner, inner], expected[:, inner, inner], atol=1e-5
  )
  dense = bilinear_init(jax.random.key(0), (size, size, 3, 3))
  np.testing.assert_allclose(
    conv_transpose(x, dense, strides=factor, padding=pad), y, atol=1e-5
  )


def test_bilinear_init_refuses_to_mix_channels():
  with pytest.raises(ValueError, match="3 channels has 2 outputs"):
    bilinear_init(jax.random.key(0), (4, 4, 3, 2))


def test_module_with_bilinear_init_doubles_a_constant():
  module = ConvTranspose(
    2, 4, 2, padding=1, use_bias=False, kernel_init=bilinear_init
  )
  x = jnp.ones((1, 5, 4, 2))
  y, variables = module.init_with_output(jax.random.key(0), x)
  assert variables["params"]["kernel"].shape == (4, 4, 2, 2)
  assert y.shape == (1, 10, 8, 2)
  np.testing.assert_allclose(y[:, 1:-1, 1:-1], 1)


@pytest.mark.parametrize(("size", "strides"), [(4, 2), (63, 32), (64, 32)])
def test_bilinear_stamps_as_matrix_products_are_the_convolution(size, strides):
  x = jax.random.normal(jax.random.key(0), (2, 2, 3, 3))
  kernel = bilinear_init(jax.random.key(0), (size, size, 3, 1))
  expected = conv_transpose(x, kernel, strides=strides, groups=3)
  y = bilinear_conv_transpose(x, kernel_size=size, strides=strides)
  assert y.shape == expected.shape
  np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(
  "setting", [s for s in SETTINGS if s[1] > 1 and s[4] == 1]
)
def test_phase_by_phase_is_the_convolution_over_zeros(setting):
  """The formulation for CPU equals the one for other platforms."""
  k, s, p, extra, _, groups = setting
  x, kernel = _inputs(k, groups)
  settings = (s, p, (extra, extra))
  y = _phases(jnp.asarray(x), jnp.asarray(kernel), *settings, groups)
  expected = _over_zeros(
    jnp.asarray(x), jnp.asarray(kernel), *settings, 1, groups
  )
  assert y.shape == expected.shape
  np.testing.assert_allclose(y, expected, atol=2e-5 * np.abs(expected).max())
