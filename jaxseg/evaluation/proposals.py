"""Inference over proposals: the largest score of any box that sees a pixel.

The idea (DeconvNet, arXiv:1505.04366, Sec. 3.4): boxes that may hold an
object are cut out, resized to the size the network was trained at, scored,
and put back; a pixel takes the maximum over boxes of each class score, so
that objects are found at whatever scale a box shows them well. The authors
took 50 of EdgeBox's boxes whose shorter side is 112 pixels or more. Boxes are
the caller's, or a grid of windows.
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

# Top, left, bottom, right, in pixels; a box of the whole image is 0, 0, h, w.
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
  """The largest score of each class over the boxes that cover a pixel.

  Pixels that no box covers have zeros, whose argmax is class 0, background. To
  be jitted with boxes of a fixed number; then they cannot be looked at, and
  the caller should have passed them through `check_boxes`.

  Args:
    model: the network.
    variables: its variables.
    image: one normalised image.
    boxes: may overlap, and have any shape.
    side: of the square each box is resized to.
    at_once: boxes the network sees as one batch.
  """
  height, width = image.shape[:2]
  if not isinstance(boxes, jax.core.Tracer):
    boxes = check_boxes(boxes, (height, width))
  boxes = jnp.asarray(boxes, jnp.float32)
  # To whole batches by repeating a box, which changes no maximum.
  missing = -len(boxes) % at_once
  boxes = jnp.concatenate([boxes, jnp.repeat(boxes[-1:], missing, axis=0)])

  def crop(box):
    rows, columns = (middles(box[i], box[i + 2], side) for i in (0, 1))
    return resample_bilinear(image, rows, columns)

  def put_back(scores, box):
    places = [_back(box[i], box[i + 2], side, image.shape[i]) for i in (0, 1)]
    (rows, in_rows), (columns, in_columns) = places
    scores = resample_bilinear(scores, rows, columns)
    seen = in_rows[:, None, None] & in_columns[None, :, None]
    return jnp.where(seen, scores, -jnp.inf)

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
  """The boxes as float32 `[m, 4]`, each inside an image of `size`.

  Raises:
    UserError: no boxes, not four numbers each, or one that is empty or
      reaches beyond the image.
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
  """Windows that cover an image of `size`, as boxes `[m, 4]`.

  Args:
    size: height and width of the image.
    window: of the boxes; the image's where it is larger.
    stride: step of the windows as a share of their sides.
  """
  window = tuple(min(w, s) for w, s in zip(window, size, strict=True))
  tops, lefts = (
    window_starts(s, w, stride) for s, w in zip(size, window, strict=True)
  )
  return np.array(
    [(t, x, t + window[0], x + window[1]) for t in tops for x in lefts],
    np.float32,
  )


def _back(start, stop, side: int, size: int):
  """Where on the crop each pixel of the image lies, and whether it does."""
  centre = jnp.arange(size) + 0.5
  source = (centre - start) * side / (stop - start) - 0.5
  return source, (centre >= start) & (centre < stop)
