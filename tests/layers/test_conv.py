"""Convolution: output sizes, positions of the taps, torch's operator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.conv import (
  Conv,
  ConvNormAct,
  kaiming_fan_in,
  kaiming_fan_out,
)

# kernel, strides, dilation, groups
SETTINGS = [
  (1, 1, 1, 1),
  (1, 2, 1, 1),
  (3, 1, 1, 1),
  (3, 2, 1, 1),
  (3, 1, 2, 1),
  (3, 1, 4, 1),
  (3, 2, 2, 1),
  (5, 1, 1, 1),
  (7, 2, 1, 1),
  (3, 1, 1, 2),
  (3, 2, 1, 4),
  (3, 1, 2, 4),
]
SIZES = [(12, 12), (13, 9)]


def _inputs(k, groups, size, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((2, *size, 4)).astype(np.float32)
  kernel = rng.standard_normal((k, k, 4 // groups, 8)).astype(np.float32)
  return x, kernel, rng.standard_normal(8).astype(np.float32)


def _apply(setting, x, kernel, bias):
  k, strides, dilation, groups = setting
  conv = Conv(8, k, strides=strides, dilation=dilation, groups=groups)
  return conv.apply({"params": {"kernel": kernel, "bias": bias}}, x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_size_follows_the_convolution_arithmetic(setting, size):
  """The size is floor((i + 2p - d(k - 1) - 1) / s) + 1 (arXiv:1603.07285)."""
  k, s, d, groups = setting
  y = _apply(setting, *map(jnp.asarray, _inputs(k, groups, size)))
  pad = d * (k - 1) // 2
  want = [(i + 2 * pad - d * (k - 1) - 1) // s + 1 for i in size]
  assert y.shape == (2, *want, 8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_middle_tap_sees_every_strided_pixel(setting, size):
  """With symmetric padding, output i is centred on input s i at any size."""
  k, s, _, groups = setting
  x, kernel, bias = _inputs(k, groups, size)
  middle = np.zeros_like(kernel)
  middle[k // 2, k // 2] = kernel[k // 2, k // 2]
  y = _apply(setting, *map(jnp.asarray, (x, middle, bias)))
  want = np.concatenate(
    [
      part @ weights
      for part, weights in zip(
        np.split(x[:, ::s, ::s], groups, axis=-1),
        np.split(middle[k // 2, k // 2], groups, axis=-1),
        strict=True,
      )
    ],
    axis=-1,
  )
  np.testing.assert_allclose(y, want + bias, atol=1e-5)


def test_dilated_taps_lie_apart():
  x = np.zeros((1, 9, 9, 1), np.float32)
  x[0, 4, 4, 0] = 1
  conv = Conv(1, 3, dilation=3, use_bias=False)
  kernel = jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1)
  y = np.asarray(conv.apply({"params": {"kernel": kernel}}, jnp.asarray(x)))
  # Networks correlate, so an impulse gives the kernel turned by 180 degrees.
  np.testing.assert_array_equal(
    y[0, 1::3, 1::3, 0], [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
  )
  assert np.count_nonzero(y) == 9


def test_bias_only_where_no_norm_follows():
  x = jnp.zeros((1, 4, 4, 3))

  def names(**fields):
    block = ConvNormAct(2, **fields)
    params = block.init(jax.random.key(0), x, train=False)["params"]
    return {(a, b) for a in params for b in params[a]}

  normed = {("conv", "kernel"), ("norm", "scale"), ("norm", "bias")}
  assert names() == normed
  assert names(norm=None) == {("conv", "kernel"), ("conv", "bias")}
  assert names(use_bias=True) == normed | {("conv", "bias")}


def test_activation_is_last_and_can_be_left_out():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3)))
  x = x.astype(jnp.float32)
  linear = ConvNormAct(4, act=None)
  variables = linear.init(jax.random.key(0), x, train=False)
  plain = linear.apply(variables, x, train=False)
  assert plain.min() < 0
  np.testing.assert_array_equal(
    ConvNormAct(4).apply(variables, x, train=False), jnp.maximum(plain, 0)
  )


def test_bfloat16_computes_on_float32_parameters():
  x = jnp.ones((1, 4, 4, 3))
  conv = Conv(4, dtype=jnp.bfloat16)
  y, variables = conv.init_with_output(jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
  ("init", "fan"), [(kaiming_fan_out, 9 * 256), (kaiming_fan_in, 9 * 64)]
)
def test_kaiming_has_variance_two_over_fan(init, fan):
  kernel = init(jax.random.key(0), (3, 3, 64, 256), jnp.float32)
  # With 147456 samples, 1 % is five standard errors of the deviation.
  np.testing.assert_allclose(kernel.std(), (2 / fan) ** 0.5, rtol=0.01)
  assert abs(kernel.mean()) < 5 * (2 / fan) ** 0.5 / 384


@pytest.mark.torch
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_values_and_gradients_equal_torch(setting, size):
  torch = pytest.importorskip("torch")
  k, s, d, groups = setting
  x, kernel, bias = _inputs(k, groups, size)
  t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
  w = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).requires_grad_()
  b = torch.from_numpy(bias).requires_grad_()
  want = torch.nn.functional.conv2d(
    t, w, b, stride=s, padding=d * (k - 1) // 2, dilation=d, groups=groups
  )
  (want**2).sum().backward()
  got, back = jax.vjp(
    lambda *a: _apply(setting, *a), *map(jnp.asarray, (x, kernel, bias))
  )
  np.testing.assert_allclose(
    got, want.detach().numpy().transpose(0, 2, 3, 1), atol=1e-4
  )
  dx, dkernel, dbias = back(2 * got)
  for ours, theirs in (
    (dx, t.grad.numpy().transpose(0, 2, 3, 1)),
    (dkernel, w.grad.numpy().transpose(2, 3, 1, 0)),
    (dbias, b.grad.numpy()),
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-2)
