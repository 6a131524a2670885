"""Reflection padding of images, of any width.

Networks of unpadded convolutions see a mirrored continuation of the image
instead of zeros (U-Net, arXiv:1505.04597, Fig. 2; DilatedNet's code,
fyu/dilation, OpenCV's BORDER_REFLECT_101). The outermost pixels are not
repeated. Padding wider than the image reflects it repeatedly.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np


def reflect_pad(
  image: Float[Array, "n h w c"], before: int, sizes: tuple[int, int]
) -> Float[Array, "n h2 w2 c"]:
  """Pads images by reflection about their outermost pixels.

  Args:
    image: Images.
    before: Number of rows added above and of columns added on the left.
    sizes: Height and width of the result.

  Returns:
    Padded images `[n, *sizes, c]`.
  """
  for axis, size in zip((1, 2), sizes, strict=True):
    pixels = image.shape[axis]
    after = size - pixels - before
    index = np.pad(np.arange(pixels), (before, after), mode="reflect")
    image = jnp.take(image, index, axis=axis)
  return image
