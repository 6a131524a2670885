"""Places examples at the top left of canvases that all have the same size.

An example that is larger than the canvas is shrunk to fit it and keeps its
aspect ratio. Images are resized bilinearly with antialiasing, labels to the
nearest pixel. A smaller example keeps its size. The rest of the canvas has the
mean colour and the ignore label, so it counts nowhere. Both loaders use this
code, on the host.

In evaluation, a fill colour would be part of the scene: it would enter the
image means of PSPNet and DeepLab and the CRF. The label is placed on the canvas
as in training, but the image fills the input of the network, whose size is that
of the label's area with each side rounded to a 16th of the canvas. A data set
of photos thus has a handful of input sizes, and the network is compiled once
for each.
"""

from collections.abc import Mapping
import dataclasses
from types import MappingProxyType

from jaxtyping import Integer, UInt8
import numpy as np
from PIL import Image

from jaxseg.data import decoding, labels

# Number of steps along a side of the canvas to which input sizes are rounded.
# Photos of 4:3 and 16:9 that fill a square canvas need no rounding.
STEPS = 16


@dataclasses.dataclass(frozen=True)
class Placement:
  """Settings that determine the example of an image and its mask.

  Attributes:
    canvas: Height and width of the canvas.
    fill: RGB colour of the canvas outside the image, in 0..255.
    ignore_label: Label of the canvas outside the image.
    label_map: Pairs of an id in the mask file and the id that replaces it.
    bits: Bits that 16-bit images use, see `decoding.eight_bits`.
  """

  canvas: tuple[int, int]
  fill: tuple[int, int, int]
  ignore_label: int
  label_map: tuple[tuple[int, int], ...] = ()
  bits: int = 0

  @classmethod
  def on_mean(
    cls,
    canvas: tuple[int, int],
    mean: tuple[float, ...],
    ignore_label: int,
    label_map: Mapping[int, int] = MappingProxyType({}),
    bits: int = 0,
  ) -> "Placement":
    """Returns a placement whose canvas has a mean colour, RGB in 0..1."""
    height, width = canvas
    red, green, blue = (round(255 * value) for value in mean)
    return cls(
      canvas=(height, width),
      fill=(red, green, blue),
      ignore_label=ignore_label,
      label_map=tuple(sorted(label_map.items())),
      bits=bits,
    )

  def place(
    self,
    image: decoding.RgbImage,
    ids: Integer[np.ndarray, "h w"],
    dtype: np.dtype,
  ) -> dict[str, np.ndarray]:
    """Places an image and its mask on the canvas.

    Args:
      image: RGB image.
      ids: Ids as the mask file stores them.
      dtype: Type of the labels.

    Returns:
      `image` and `label` on the canvas, and `size`, the height and width of
      the area that they cover.

    Raises:
      UserError: The image has 16 bits, and their range is not known.
    """
    image = decoding.eight_bits(image, self.bits)
    example = self._place_label(ids, dtype)
    height, width = example["size"].tolist()
    example["image"][:height, :width] = resize_image(image, (height, width))
    return example

  def _place_label(
    self, ids: Integer[np.ndarray, "h w"], dtype: np.dtype
  ) -> dict[str, np.ndarray]:
    """Returns an example with `label` and `size` and without its image."""
    label = labels.rewrite(ids, dict(self.label_map), dtype)
    height, width = fitted_size(label.shape, self.canvas)
    example = self.padding(dtype)
    example["label"][:height, :width] = _shrink_label(label, (height, width))
    example["size"][:] = height, width
    return example

  def input_size(self, size: tuple[int, ...]) -> tuple[int, int]:
    """Returns the size of the network's input in evaluation.

    Args:
      size: Height and width of an image.
    """
    height, width = (
      _rounded(side, limit)
      for side, limit in zip(
        fitted_size(size, self.canvas), self.canvas, strict=True
      )
    )
    return height, width

  def network_input(
    self, image: decoding.RgbImage
  ) -> UInt8[np.ndarray, "ih iw 3"]:
    """Returns an image at its `input_size`, resized once from the original.

    Raises:
      UserError: The image has 16 bits, and their range is not known.
    """
    size = self.input_size(image.shape[:2])
    return resize_image(decoding.eight_bits(image, self.bits), size)

  def place_whole(
    self,
    image: decoding.RgbImage,
    ids: Integer[np.ndarray, "h w"],
    dtype: np.dtype,
  ) -> dict[str, np.ndarray]:
    """Returns an example for evaluation.

    Args:
      image: RGB image.
      ids: Ids as the mask file stores them.
      dtype: Type of the labels.

    Returns:
      `image` as `network_input` returns it; and `label` on the canvas and
      `size`, the area that it covers, as `place` does.

    Raises:
      UserError: The image has 16 bits, and their range is not known.
    """
    whole = self.network_input(image)
    return {**self._place_label(ids, dtype), "image": whole}

  def padding(self, dtype: np.dtype) -> dict[str, np.ndarray]:
    """Returns an empty example, which completes the last batch of a split."""
    height, width = self.canvas
    return {
      "image": np.full((height, width, 3), self.fill, np.uint8),
      "label": np.full((height, width), self.ignore_label, dtype),
      "size": np.zeros(2, np.int32),
    }


def fitted_size(
  size: tuple[int, ...], canvas: tuple[int, int]
) -> tuple[int, int]:
  """Returns `size` shrunk to fit the canvas, with its aspect ratio kept."""
  factor = min(1.0, canvas[0] / size[0], canvas[1] / size[1])
  height, width = (
    min(limit, max(1, round(side * factor)))
    for side, limit in zip(size, canvas, strict=True)
  )
  return height, width


def _rounded(side: int, limit: int) -> int:
  """Returns `side` rounded to the nearest of `STEPS` equal parts of `limit`."""
  steps = max((2 * STEPS * side + limit) // (2 * limit), 1)
  return max((2 * steps * limit + STEPS) // (2 * STEPS), 1)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes an image bilinearly, with antialiasing where it shrinks."""
  if image.shape[:2] == size:
    return image
  resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
  return np.asarray(resized)


def _shrink_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Returns the labels of the pixels below the centres of the new pixels."""
  rows, columns = (
    ((2 * np.arange(new) + 1) * old) // (2 * new)
    for old, new in zip(label.shape, size, strict=True)
  )
  return label[rows[:, None], columns]
