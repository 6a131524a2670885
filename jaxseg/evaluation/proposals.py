"""Inference over object proposals: the maximum score over boxes.

DeconvNet (arXiv:1505.04366, Sec. 3.4) crops the boxes that may contain an
object, resizes the crops to the size of the training images, applies the
network, and resizes the scores back to the boxes. Each pixel takes the maximum
over boxes of the score of each class, so objects of any size are found in the
box that shows them best. The authors use 50 boxes of EdgeBox whose shorter side
is 112 pixels or more. Here the caller passes the boxes; `grid_boxes` returns
a grid of windows.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from jaxseg.errors import UserError
from jaxseg.evaluation.inference import window_starts
from jaxseg.layers.boxes import middles, require_inside
from jaxseg.layers.resize import resample_bilinear

# Top, left, bottom, right in pixels. The whole image is the box (0, 0, h, w).
Boxes = Float[Array, "m 4"] | Float[np.ndarray, "m 4"]


def score_proposals(
  model: nn.Module,
  variables: Any,
  image: Float[Array, "h w c"],
  boxes: Boxes,
  *,
  side: int = 224,
  at_once: int = 4,
) -> Float[Array, "h w k"]:
  """Returns the maximum score of each class over the boxes at each pixel.

  Under `jax.jit` the number of boxes is fixed and their values are unknown, so
  the caller must check them with `check_boxes` before.

  Args:
    model: The network.
    variables: Variables of the network.
    image: One normalised image.
    boxes: Boxes of any shape; they may overlap.
    side: Side of the square that each box is resized to.
    at_once: Number of boxes in one batch.

  Returns:
    Scores of each pixel. A pixel outside all boxes has zeros, whose argmax is
    class 0, the background.
  """
  height, width = image.shape[:2]
  if not isinstance(boxes, jax.core.Tracer):
    boxes = check_boxes(boxes, (height, width))
  boxes = jnp.asarray(boxes, jnp.float32)
  # Repeating the last box completes the last batch and changes no maximum.
  missing = -len(boxes) % at_once
  boxes = jnp.concatenate([boxes, jnp.repeat(boxes[-1:], missing, axis=0)])

  def crop(box):
    rows, columns = (middles(box[i], box[i + 2], side) for i in (0, 1))
    return resample_bilinear(image, rows, columns)

  def put_back(scores, box):
    rows, in_rows = _positions(box[0], box[2], side, height)
    columns, in_columns = _positions(box[1], box[3], side, width)
    scores = resample_bilinear(scores, rows, columns)
    inside = in_rows[:, None, None] & in_columns[None, :, None]
    return jnp.where(inside, scores, -jnp.inf)

  def one_batch(best, batch):
    crops = jax.vmap(crop)(batch)
    scores = model.apply(variables, crops, train=False)["logits"]
    scores = jax.vmap(put_back)(scores, batch)
    return jnp.maximum(best, jnp.max(scores, axis=0)), None

  shape = jax.eval_shape(
    lambda x: model.apply(variables, x, train=False)["logits"],
    jax.ShapeDtypeStruct((1, side, side, image.shape[2]), image.dtype),
  ).shape
  best = jnp.full((height, width, shape[-1]), -jnp.inf)
  best, _ = jax.lax.scan(one_batch, best, boxes.reshape(-1, at_once, 4))
  return jnp.where(jnp.isneginf(best), 0.0, best)


def check_boxes(boxes: Any, size: tuple[int, int]) -> np.ndarray:
  """Returns boxes as float32 `[m, 4]` after checking them.

  Args:
    boxes: Rows of (top, left, bottom, right).
    size: Height and width of the image.

  Raises:
    UserError: There are no boxes, a box does not have four numbers, is empty,
      or extends beyond the image.
  """
  boxes = np.asarray(boxes, np.float32)
  if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
    raise UserError(
      f"boxes: expected one or more rows of (top, left, bottom, right), got an "
      f"array of shape {boxes.shape}"
    )
  require_inside(boxes, size)
  return boxes


def grid_boxes(
  size: tuple[int, int], window: tuple[int, int], stride: float = 0.5
) -> np.ndarray:
  """Returns overlapping windows that cover an image, as boxes `[m, 4]`.

  Args:
    size: Height and width of the image.
    window: Height and width of the windows, at most those of the image.
    stride: Step of the windows as a share of their sides.
  """
  window = tuple(min(w, s) for w, s in zip(window, size, strict=True))
  tops, lefts = (
    window_starts(s, w, stride) for s, w in zip(size, window, strict=True)
  )
  return np.array(
    [(t, x, t + window[0], x + window[1]) for t in tops for x in lefts],
    np.float32,
  )


def _positions(first, last, side: int, size: int):
  """Locates the pixels of the image on a resized crop, along one axis.

  Args:
    first: First edge of the box.
    last: Last edge of the box.
    side: Length of the resized crop.
    size: Length of the image.

  Returns:
    The position of each pixel on the crop, and whether it lies in the box.
  """
  centre = jnp.arange(size) + 0.5
  position = (centre - first) * side / (last - first) - 0.5
  return position, (centre >= first) & (centre < last)
