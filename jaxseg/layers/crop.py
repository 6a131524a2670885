"""Cropping and padding of feature maps to a given height and width.

`centre_crop` keeps the middle: U-Net crops its skips (arXiv:1505.04597,
Fig. 1) and FC-DenseNet its upsampled maps. `crop_or_pad` changes the bottom
and right borders only: where max pooling floored an odd size, the upsampled
map is one row or column short of its skip.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def centre_crop(
  x: Float[Array, "n h w c"], size: tuple[int, int]
) -> Float[Array, "n h2 w2 c"]:
  """Returns the central `size` (height, width) of `x`.

  If the number of rows or columns to remove is odd, one more is removed at
  the bottom or on the right.
  """
  top, left = ((a - s) // 2 for a, s in zip(x.shape[1:3], size, strict=True))
  return x[:, top : top + size[0], left : left + size[1]]


def crop_or_pad(
  x: Float[Array, "n h w c"], size: tuple[int, int]
) -> Float[Array, "n h2 w2 c"]:
  """Crops or zero-pads `x` at the bottom and right to `size`."""
  missing = [max(s - a, 0) for s, a in zip(size, x.shape[1:3], strict=True)]
  x = x[:, : size[0], : size[1]]
  return jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
