"""Boxes on an image: invalid boxes are refused and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import UserError
from jaxseg.layers.boxes import require_inside


@pytest.mark.parametrize(
  "box",
  [
    (-1, 0, 5, 5),
    (0, 0, 65, 10),
    (0, 50, 10, 90),
    (5, 5, 5, 9),
    (9, 5, 5, 9),
    (0, 0, float("nan"), 9),
  ],
)
def test_boxes_outside_or_empty_are_named(box):
  boxes = np.zeros((2, 3, 4), np.float32)
  boxes[...] = (0, 0, 4, 4)
  boxes[1, 2] = box
  with pytest.raises(UserError) as error:
    require_inside(jnp.asarray(boxes), (64, 80))
  assert "boxes[1, 2]" in str(error.value)
  assert "64x80" in str(error.value) and "\n" not in str(error.value)
  # Traced boxes have no numbers to check.
  jax.jit(lambda b: (require_inside(b, (64, 80)), b)[1])(jnp.asarray(boxes))
