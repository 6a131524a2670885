"""Padding of images by reflection."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped
import numpy as np


def reflect_pad(
  x: Shaped[Array, "n h w c"],
  padding: tuple[tuple[int, int], tuple[int, int]],
) -> Shaped[Array, "n h2 w2 c"]:
  """Pads rows and columns by reflection about the outermost pixels.

  Equals `np.pad(mode="reflect")`: the outermost pixels are not repeated, and
  padding wider than the image reflects it again and again.

  Args:
    x: Images.
    padding: Pixels added ((above, below), (left, right)).
  """
  for axis, widths in zip((1, 2), padding, strict=True):
    index = np.pad(np.arange(x.shape[axis]), widths, mode="reflect")
    x = jnp.take(x, index, axis=axis)
  return x
