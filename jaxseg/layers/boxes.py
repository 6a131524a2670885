"""Boxes on an image: (top, left, bottom, right) in pixels.

A box of the whole image is (0, 0, h, w): its sides run between pixels, whose
centres are at halves. Pixel i as a coordinate of `sample_bilinear` is its
centre.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import UserError


def middles(start: Any, stop: Any, parts: int) -> jax.Array:
  """Coordinates of the middles of equal parts of one side of a box."""
  return start + (jnp.arange(parts) + 0.5) * (stop - start) / parts - 0.5


def require_inside(boxes: Any, size: tuple[int, int]) -> None:
  """Refuses boxes `[..., 4]` that leave an image of `size` or are empty.

  Inside jit their numbers are not known, and nothing is checked.

  Raises:
    UserError: the error names the first such box.
  """
  if isinstance(boxes, jax.core.Tracer):
    return
  boxes = np.asarray(boxes)
  h, w = size
  top, left, bottom, right = np.moveaxis(boxes, -1, 0)
  # Written so that NaN fails as well.
  inside = (top >= 0) & (left >= 0) & (bottom <= h) & (right <= w)
  good = inside & (bottom > top) & (right > left)
  if good.all():
    return
  index = np.argwhere(~good)[0].tolist()
  name = f"boxes{index}" if len(index) > 1 else f"box {index[0]}"
  raise UserError(
    f"{name} is {boxes[tuple(index)].tolist()}: expected top < bottom <= {h} "
    f"and left < right <= {w}, none negative, in pixels of the {h}x{w} image; "
    "clip boxes to the image and drop empty ones"
  )
