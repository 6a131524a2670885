"""Reflection padding against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.padding import reflect_pad


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(
  "size, padding",
  [
    ((5, 7), ((1, 2), (3, 0))),
    ((5, 7), ((4, 4), (6, 6))),
    # Wider than the image: the reflection is reflected again.
    ((3, 2), ((7, 11), (9, 4))),
    ((1, 4), ((2, 3), (0, 1))),
  ],
)
def test_equals_numpy(size, padding, dtype):
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (2, *size, 3)).astype(dtype)
  want = np.pad(x, ((0, 0), *padding, (0, 0)), mode="reflect")
  got = jax.jit(reflect_pad, static_argnums=1)(jnp.asarray(x), padding)
  assert got.dtype == x.dtype
  np.testing.assert_array_equal(got, want)


def test_gradient_counts_the_copies_of_each_pixel():
  """A row 0 1 2 padded by (2, 1) reads 2 1 0 1 2 1."""
  grad = jax.grad(lambda x: reflect_pad(x, ((0, 0), (2, 1))).sum())(
    jnp.zeros((1, 1, 3, 1))
  )
  np.testing.assert_array_equal(grad.ravel(), [1, 3, 2])
