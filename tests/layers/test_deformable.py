"""Deformable convolution against a float64 loop in NumPy.

The loop follows torchvision/csrc/ops/cpu/deform_conv2d_kernel.cpp in channel
layout, sampling positions and the border rule of `bilinear_interpolate`.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.conv import Conv
from jaxseg.layers.deformable import DeformableConv, deform_conv2d


def _sample(plane, y, x):
  h, w = plane.shape
  if y <= -1 or y >= h or x <= -1 or x >= w:
    return 0.0
  y0, x0 = int(np.floor(y)), int(np.floor(x))
  total = 0.0
  for i, j in itertools.product((0, 1), (0, 1)):
    if 0 <= y0 + i < h and 0 <= x0 + j < w:
      weight_y = y - y0 if i else 1 - (y - y0)
      weight_x = x - x0 if j else 1 - (x - x0)
      total += weight_y * weight_x * plane[y0 + i, x0 + j]
  return total


def _reference(
  x, offset, kernel, mask, strides, padding, dilation, groups, offset_groups
):
  n, _, _, c = x.shape
  kh, kw, per_group, features = kernel.shape
  ho, wo = offset.shape[1:3]
  out = np.zeros((n, ho, wo, features))
  for b, i, j, channel in np.ndindex(n, ho, wo, c):
    og = channel // (c // offset_groups)
    g = channel // per_group
    for a, e in np.ndindex(kh, kw):
      tap = (og * kh + a) * kw + e
      value = _sample(
        x[b, :, :, channel],
        i * strides - padding + a * dilation + offset[b, i, j, 2 * tap],
        j * strides - padding + e * dilation + offset[b, i, j, 2 * tap + 1],
      )
      if mask is not None:
        value *= mask[b, i, j, tap]
      block = features // groups
      block = slice(g * block, (g + 1) * block)
      out[b, i, j, block] += value * kernel[a, e, channel % per_group, block]
  return out


def _inputs(size, kernel, channels, features, setting, seed=0):
  strides, padding, dilation, groups, offset_groups = setting
  rng = np.random.default_rng(seed)
  kh, kw = kernel
  ho, wo = (
    (s + 2 * padding - dilation * (k - 1) - 1) // strides + 1
    for s, k in zip(size, kernel, strict=True)
  )
  taps = offset_groups * kh * kw
  x = rng.standard_normal((2, *size, channels))
  # Offsets of several pixels move many positions off the image.
  offset = 2.5 * rng.standard_normal((2, ho, wo, 2 * taps))
  kernel = rng.standard_normal((kh, kw, channels // groups, features))
  mask = rng.uniform(0, 1, (2, ho, wo, taps))
  return x, offset, kernel, mask


# strides, padding, dilation, groups, offset_groups
SETTINGS = [
  (1, 1, 1, 1, 1),
  (2, 1, 1, 1, 2),
  (1, 2, 2, 2, 1),
  (2, 0, 1, 4, 4),
  (1, 3, 2, 2, 4),
]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("modulated", [False, True])
def test_equals_the_loop(setting, modulated):
  arrays = _inputs((7, 6), (3, 3), 4, 8, setting)
  x, offset, kernel, mask = arrays
  mask = mask if modulated else None
  expected = _reference(x, offset, kernel, mask, *setting)
  names = ("strides", "padding", "dilation", "groups", "offset_groups")
  with jax.enable_x64():
    y = deform_conv2d(
      *(None if a is None else jnp.asarray(a) for a in (x, offset, kernel)),
      None if mask is None else jnp.asarray(mask),
      **dict(zip(names, setting, strict=True)),
    )
    np.testing.assert_allclose(y, expected, atol=1e-12)


def test_oblong_kernel_equals_the_loop():
  setting = (1, 1, 1, 1, 1)
  x, offset, kernel, mask = _inputs((5, 8), (1, 3), 2, 3, setting)
  expected = _reference(x, offset, kernel, mask, *setting)
  with jax.enable_x64():
    y = deform_conv2d(
      jnp.asarray(x),
      jnp.asarray(offset),
      jnp.asarray(kernel),
      jnp.asarray(mask),
      padding=1,
    )
    np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize(
  ("strides", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 1)]
)
def test_zero_offsets_are_the_plain_convolution(strides, dilation, groups):
  """The initial layer with a plain convolution's parameters equals it."""
  x = jax.random.normal(jax.random.key(0), (2, 9, 7, 4))
  fields = dict(features=6, strides=strides, dilation=dilation, groups=groups)
  plain = Conv(**fields)
  params = plain.init(jax.random.key(1), x)["params"]
  expected = plain.apply({"params": params}, x)
  for modulated in (False, True):
    module = DeformableConv(
      **fields, modulated=modulated, offset_groups=2, mask_scale=2.0
    )
    fresh = jax.jit(module.init)(jax.random.key(2), x)["params"]
    assert fresh["offset"]["kernel"].shape[-1] == 9 * 2 * (2 + modulated)
    y = jax.jit(module.apply)({"params": {**fresh, **params}}, x)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_v2_starts_at_half_the_plain_convolution():
  """The initial modulation is sigmoid(0) = 1/2 (arXiv:1811.11168, Sec. 3.2)."""
  x = jax.random.normal(jax.random.key(0), (1, 6, 5, 3))
  module = DeformableConv(4, modulated=True, use_bias=False)
  y, variables = jax.jit(module.init_with_output)(jax.random.key(1), x)
  kernel = variables["params"]["kernel"]
  plain = Conv(4, use_bias=False).apply({"params": {"kernel": kernel}}, x)
  np.testing.assert_allclose(2 * y, plain, atol=1e-5)


@pytest.mark.parametrize("shift", [(0, 1), (-2, 0), (1, -3), (9, 9)])
def test_whole_offsets_sample_the_shifted_image(shift):
  x = jax.random.normal(jax.random.key(0), (1, 8, 7, 2))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 3))
  dy, dx = shift
  offset = jnp.tile(jnp.asarray([dy, dx], jnp.float32), (1, 8, 7, 9))
  y = jax.jit(deform_conv2d)(x, offset, kernel)
  # Convolve a canvas that is wide enough for every shift.
  wide = jnp.pad(x, ((0, 0), (10, 10), (10, 10), (0, 0)))
  plain = jax.lax.conv_general_dilated(
    wide, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  expected = plain[:, 10 + dy : 18 + dy, 10 + dx : 17 + dx]
  np.testing.assert_allclose(y, expected, atol=1e-5)


def test_boundary_rule():
  """The image fades to zero within one pixel outside of its border."""
  x = jnp.ones((1, 3, 3, 1))
  kernel = jnp.ones((1, 1, 1, 1))
  for dy, expected in [
    (-0.25, 0.75),
    (-1.0, 0.0),
    (-1.5, 0.0),
    (2.5, 0.5),
    (3.0, 0.0),
    (1e30, 0.0),
  ]:
    offset = jnp.zeros((1, 3, 3, 2)).at[0, 0, 0, 0].set(dy)
    y = jax.jit(deform_conv2d)(x, offset, kernel)
    assert float(y[0, 0, 0, 0]) == pytest.approx(expected)


def test_gradients_equal_finite_differences():
  setting = (1, 1, 1, 2, 2)
  arrays = _inputs((4, 5), (3, 3), 4, 4, setting)
  with jax.enable_x64():
    arrays = [jnp.asarray(a) for a in arrays]

    def loss(arrays):
      y = deform_conv2d(*arrays, padding=1, groups=2, offset_groups=2)
      return jnp.sum(jnp.sin(y))

    gradient = jax.jit(jax.grad(loss))(arrays)
    value = jax.jit(loss)
    rng = np.random.default_rng(3)
    for _ in range(5):
      direction = [jnp.asarray(rng.standard_normal(a.shape)) for a in arrays]
      # A small step crosses hardly any pixel centre, where the slope jumps.
      step = 1e-7
      up, down = (
        value([a + s * d for a, d in zip(arrays, direction, strict=True)])
        for s in (step, -step)
      )
      slope = sum(
        jnp.vdot(g, d) for g, d in zip(gradient, direction, strict=True)
      )
      np.testing.assert_allclose((up - down) / (2 * step), slope, rtol=1e-5)


def test_gradient_reaches_the_offsets_of_the_module():
  """Offsets of zero lie at kinks of the sampler and still have gradients."""
  x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
  module = DeformableConv(4, modulated=True)
  params = jax.jit(module.init)(jax.random.key(1), x)["params"]
  gradient = jax.jit(
    jax.grad(lambda p: jnp.sum(module.apply({"params": p}, x) ** 2))
  )(params)
  for leaf in jax.tree.leaves(gradient):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


def test_bfloat16_keeps_parameters_and_offsets_precise():
  x = jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
  module = DeformableConv(4, modulated=True)
  half = DeformableConv(4, modulated=True, dtype=jnp.bfloat16)
  variables = jax.jit(module.init)(jax.random.key(1), x)
  y = jax.jit(half.apply)(variables, x.astype(jnp.bfloat16))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    y.astype(jnp.float32), jax.jit(module.apply)(variables, x), atol=0.05
  )


@pytest.mark.parametrize("gradient", [False, True])
def test_memory_stays_below_one_gathered_input(gradient):
  """A 3x3 kernel on 64 x 64 x 512 needs less memory than nine copies."""
  x = jax.ShapeDtypeStruct((1, 64, 64, 512), jnp.float32)
  offset = jax.ShapeDtypeStruct((1, 64, 64, 18), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 3, 512, 512), jnp.float32)

  def run(x, offset, kernel):
    return jnp.sum(deform_conv2d(x, offset, kernel) ** 2)

  if gradient:
    run = jax.grad(run, argnums=(0, 1, 2))
  compiled = jax.jit(run).lower(x, offset, kernel).compile()
  gathered = 9 * 64 * 64 * 512 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < gathered
