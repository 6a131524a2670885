"""Dense pooling equals loops over its taps, and strided pooling subsampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.backbones.strides import Stage, stage_avg_pool, stage_max_pool
from jaxseg.layers.pool import avg_pool, dilated_avg_pool, dilated_max_pool


def taps(x, i, j, window, dilation):
  """Returns the values in the map of the window that begins at (i, j)."""
  h, w = x.shape
  return [
    x[r, s]
    for r in range(i, i + window * dilation, dilation)
    for s in range(j, j + window * dilation, dilation)
    if 0 <= r < h and 0 <= s < w
  ]


@pytest.mark.parametrize("window, dilation", [(2, 1), (2, 3), (3, 2)])
def test_taps_lie_apart(window, dilation):
  x = np.random.default_rng(0).normal(size=(9, 11)).astype(np.float32)
  pads = (dilation, 2)
  got = dilated_max_pool(
    jnp.asarray(x)[None, ..., None], window, dilation, pads
  )[0, ..., 0]
  span = dilation * (window - 1)
  assert got.shape == (9 + sum(pads) - span, 11 + sum(pads) - span)
  for i, j in np.ndindex(got.shape):
    seen = taps(x, i - pads[0], j - pads[0], window, dilation)
    assert got[i, j] == max(seen, default=-np.inf)
  mean = dilated_avg_pool(jnp.asarray(x)[None, ..., None], window, dilation)
  for i, j in np.ndindex(x.shape):
    want = np.mean(taps(x, i, j, window, dilation))
    np.testing.assert_allclose(mean[0, i, j, 0], want, atol=1e-6)


def test_average_pool_drops_the_partial_window():
  x = jnp.arange(15.0).reshape(1, 3, 5, 1)
  np.testing.assert_array_equal(avg_pool(x, 2)[0, ..., 0], [[3.0, 5.0]])


@pytest.mark.parametrize("size", [16, 17])
@pytest.mark.parametrize(
  "window, padding, ceil_mode", [(3, 1, False), (3, 0, False), (3, 0, True),
                                 (3, 1, True), (2, 0, True), (2, 0, False)]
)  # fmt: skip
def test_two_dense_pools_are_two_strided_ones(size, window, padding, ceil_mode):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, size, size, 2)))

  @jax.jit
  def both(x):
    strided, dense = x, x
    for previous in (1, 2):
      strided, dense = (
        stage_max_pool(v, window, stage, padding=padding, ceil_mode=ceil_mode)
        for v, stage in (
          (strided, Stage(2, 1, 1)),
          (dense, Stage(1, 2 * previous, previous)),
        )
      )
    return strided, dense

  strided, dense = both(x)
  np.testing.assert_array_equal(dense[:, ::4, ::4], strided)


def test_two_dense_average_pools_are_two_strided_ones():
  """On even maps; of odd ones only the strided pool drops the last row."""
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 16, 2)))
  strided = stage_avg_pool(
    stage_avg_pool(x, 2, Stage(2, 1, 1)), 2, Stage(2, 1, 1)
  )
  dense = stage_avg_pool(
    stage_avg_pool(x, 2, Stage(1, 2, 1)), 2, Stage(1, 4, 2)
  )
  np.testing.assert_allclose(dense[:, ::4, ::4], strided, atol=1e-6)
