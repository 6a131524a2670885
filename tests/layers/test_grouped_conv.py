"""Grouped convolution as lowered for CPU equals XLA's own operator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.conv import convolve, symmetric_padding

# (groups, features, dtype), (strides, dilation, padding) of depthwise, grouped
# and depthwise convolutions, the last with a channel multiplier.
CASES = [
  ((6, 6, "float32"), (1, 1, None)),
  ((6, 6, "float32"), (2, 3, "SAME")),
  ((6, 6, "float32"), (2, 1, ((0, 2), (1, 0)))),
  ((6, 6, "bfloat16"), (1, 2, None)),
  ((2, 4, "float32"), (1, 2, None)),
  ((2, 4, "float32"), (2, 1, "VALID")),
  ((6, 12, "float32"), (2, 1, None)),
]


@pytest.mark.parametrize("kind, setting", CASES)
def test_equals_xla(kind, setting):
  """Compares values and both gradients."""
  groups, features, dtype = kind
  strides, dilation, padding = setting
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 9, 12, 6)), dtype)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 6 // groups, features)), dtype)

  def ours(x, kernel):
    return convolve(
      x,
      kernel,
      strides=strides,
      dilation=dilation,
      padding=padding,
      groups=groups,
    )

  def xla(x, kernel):
    pads = symmetric_padding(3, dilation) if padding is None else padding
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (strides, strides),
      pads,
      rhs_dilation=(dilation, dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=groups,
    )

  @functools.partial(jax.jit, static_argnums=0)
  def with_gradients(f):
    y, pull = jax.vjp(f, x, kernel)
    return y, *pull(jnp.cos(jnp.arange(y.size, dtype=dtype)).reshape(y.shape))

  tolerance = 1e-5 if dtype == "float32" else 0.05
  for got, want in zip(with_gradients(ours), with_gradients(xla), strict=True):
    assert got.dtype == want.dtype and got.shape == want.shape
    got, want = (np.asarray(v, np.float32) for v in (got, want))
    np.testing.assert_allclose(got, want, atol=tolerance * np.abs(want).max())
