"""Every example on a canvas of one size, top left.

What is larger than the canvas shrinks to fit it, sides in proportion: images
bilinear with antialiasing, labels to the nearest pixel. What is smaller keeps
its size. The rest of the canvas is the mean colour and the ignore id, so it
counts nowhere. Both loaders place with this one function, on the host.
"""

import dataclasses

from jaxtyping import Integer, UInt8
import numpy as np
from PIL import Image

from jaxseg.data import labels


@dataclasses.dataclass(frozen=True)
class Placement:
  """All that decides how a pair of files becomes an example.

  Attributes:
    canvas: height, width.
    fill: RGB bytes outside the image.
    ignore_label: label outside the image.
    label_map: pairs of (id in the file, canonical id).
  """

  canvas: tuple[int, int]
  fill: tuple[int, int, int]
  ignore_label: int
  label_map: tuple[tuple[int, int], ...] = ()

  def make(
    self,
    image: UInt8[np.ndarray, "h w 3"],
    ids: Integer[np.ndarray, "h w"],
    dtype: np.dtype,
  ) -> dict[str, np.ndarray]:
    """An example: `image`, `label` on the canvas, `size` of the valid area."""
    label = labels.rewrite(ids, dict(self.label_map), dtype)
    return self._place(image, label)

  def padding(self, dtype: np.dtype) -> dict[str, np.ndarray]:
    """The example that is all padding; it fills a last batch."""
    height, width = self.canvas
    return {
      "image": np.full((height, width, 3), self.fill, np.uint8),
      "label": np.full((height, width), self.ignore_label, dtype),
      "size": np.zeros(2, np.int32),
    }

  def _place(
    self, image: np.ndarray, label: np.ndarray
  ) -> dict[str, np.ndarray]:
    height, width = fitted_size(label.shape, self.canvas)
    example = self.padding(label.dtype)
    example["image"][:height, :width] = _shrink_image(image, (height, width))
    example["label"][:height, :width] = _shrink_label(label, (height, width))
    example["size"][:] = height, width
    return example


def fitted_size(
  size: tuple[int, ...], canvas: tuple[int, int]
) -> tuple[int, int]:
  """Height and width of an image of `size` after it was made to fit."""
  factor = min(1.0, canvas[0] / size[0], canvas[1] / size[1])
  height, width = (
    min(limit, max(1, round(side * factor)))
    for side, limit in zip(size, canvas, strict=True)
  )
  return height, width


def _shrink_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  if image.shape[:2] == size:
    return image
  resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
  return np.asarray(resized)


def _shrink_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """The pixel under each new pixel's centre."""
  rows, columns = (
    ((2 * np.arange(new) + 1) * old) // (2 * new)
    for old, new in zip(label.shape, size, strict=True)
  )
  return label[rows[:, None], columns]
