"""Layout conversions leave the results of operations unchanged."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.conv import convolve
from jaxseg.layers.transposed import conv_transpose
from jaxseg.weights import layouts


def test_dense_after_flattening_reads_the_same_pixels():
  """PyTorch flattens channels first, jaxseg flattens them last."""
  rng = np.random.default_rng(0)
  image = rng.standard_normal((4, 5, 3))
  weight = rng.standard_normal((7, 3 * 4 * 5))
  theirs = weight @ image.transpose(2, 0, 1).ravel()
  ours = image.ravel() @ layouts.dense_after_flattening(weight, size=(4, 5))
  np.testing.assert_allclose(ours, theirs)
  np.testing.assert_array_equal(layouts.dense(weight), weight.T)


def test_one_channel_equals_a_repeated_grey_image():
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((3, 3, 3, 8)).astype(np.float32)
  grey = jnp.asarray(rng.standard_normal((1, 6, 6, 1)), jnp.float32)
  one = jnp.asarray(layouts.adapt_input_channels(kernel, 1))
  np.testing.assert_allclose(
    convolve(grey, one),
    convolve(jnp.repeat(grey, 3, axis=-1), jnp.asarray(kernel)),
    atol=1e-5,
  )


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_other_channels_repeat_rgb_and_keep_the_sum(channels):
  kernel = np.arange(1.0, 7.0).reshape(1, 1, 3, 2)
  adapted = layouts.adapt_input_channels(kernel, channels)
  assert adapted.shape == (1, 1, channels, 2)
  for c in range(channels):
    np.testing.assert_allclose(
      adapted[:, :, c], kernel[:, :, c % 3] * 3 / channels
    )


@pytest.mark.torch
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_kernels_equal_torch(groups):
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(0)
  image = rng.standard_normal((2, 7, 6, 4), np.float32)
  chw = torch.from_numpy(image.transpose(0, 3, 1, 2))
  plain = rng.standard_normal((8, 4 // groups, 3, 3), np.float32)
  stamp = rng.standard_normal((4, 8 // groups, 3, 3), np.float32)
  pairs = [
    (
      convolve(
        jnp.asarray(image),
        jnp.asarray(layouts.convolution(plain)),
        groups=groups,
      ),
      torch.conv2d(chw, torch.from_numpy(plain), padding=1, groups=groups),
    ),
    (
      conv_transpose(
        jnp.asarray(image),
        jnp.asarray(layouts.transposed_convolution(stamp)),
        strides=2,
        groups=groups,
      ),
      torch.conv_transpose2d(
        chw, torch.from_numpy(stamp), stride=2, groups=groups
      ),
    ),
  ]
  for ours, theirs in pairs:
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), atol=2e-5)
