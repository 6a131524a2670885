"""Local response normalisation against its formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.layers.lrn import local_response_norm


def test_equals_the_formula():
  """Caffe's is x / (k + alpha / n * sum of squares of n neighbours)^beta."""
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 9))
  want = np.empty_like(x)
  for c in range(9):
    near = x[..., max(c - 2, 0) : c + 3]
    energy = 2.0 + 0.5 / 5 * np.sum(near**2, axis=-1)
    want[..., c] = x[..., c] / energy**0.75
  got = local_response_norm(
    jnp.asarray(x, jnp.float32), 5, alpha=0.5, beta=0.75, k=2.0
  )
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_defaults_are_caffenets():
  """CaffeNet has local_size 5, alpha 1e-4, beta 0.75 and k 1.

  A constant c then becomes c (1 + 1e-4 c^2)^-0.75 in complete windows.
  """
  y = local_response_norm(jnp.full((1, 7), 100.0))
  np.testing.assert_allclose(y[0, 3], 100 * 2**-0.75, rtol=1e-6)


def test_has_a_gradient_under_jit():
  x = jnp.ones((1, 2, 2, 6))
  grad = jax.jit(jax.grad(lambda x: local_response_norm(x, alpha=1.0).sum()))(x)
  assert np.isfinite(grad).all() and (grad != 0).all()
