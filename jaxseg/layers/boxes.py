"""Boxes on an image: (top, left, bottom, right) in pixels.

The sides of a box run between pixels, so a box of the whole image is (0, 0, h,
w) and pixel i covers [i, i + 1]. Positions in `layers.bilinear` and
`layers.resize` count from the centre of pixel 0 instead.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import UserError


def middles(start: Any, stop: Any, parts: int) -> jax.Array:
  """Returns the positions of the middles of equal parts of a box's side."""
  return start + (jnp.arange(parts) + 0.5) * (stop - start) / parts - 0.5


def require_inside(boxes: Any, size: tuple[int, int]) -> None:
  """Checks that boxes `[..., 4]` are not empty and lie inside an image.

  Traced boxes are not checked, because their numbers are unknown.

  Raises:
    UserError: A box is empty or leaves an image of `size`; the error names the
      first such box.
  """
  if isinstance(boxes, jax.core.Tracer):
    return
  boxes = np.asarray(boxes)
  h, w = size
  top, left, bottom, right = np.moveaxis(boxes, -1, 0)
  # NaN fails these comparisons too.
  inside = (top >= 0) & (left >= 0) & (bottom <= h) & (right <= w)
  good = inside & (bottom > top) & (right > left)
  if good.all():
    return
  index = np.argwhere(~good)[0].tolist()
  name = f"boxes{index}" if len(index) > 1 else f"box {index[0]}"
  raise UserError(
    f"{name} is {boxes[tuple(index)].tolist()}; expected 0 <= top < bottom <= "
    f"{h} and 0 <= left < right <= {w}, in pixels of the {h}x{w} image; clip "
    "boxes to the image and drop empty ones"
  )
