"""Settings that are chosen from the images of a data set.

These are the canvas, the training crop and the range of 16-bit images. They are
chosen once, from the training split, and the work directory keeps them, so that
evaluation and prediction treat every image in the same way.
"""

from collections.abc import Iterable
import dataclasses

from jaxseg.data import audit, progress
from jaxseg.data.placement import fitted_size
from jaxseg.data.sources import Source
from jaxseg.errors import UserError

Size = tuple[int, int]

# Sides of a canvas are multiples of the largest stride of the networks.
_STRIDE = 32
_BITS = (8, 10, 12, 14, 16)


@dataclasses.dataclass(frozen=True)
class Survey:
  """Sizes and values of the images of a split.

  Attributes:
    count: Number of images.
    sizes: The different sizes, (height, width).
    peak: Largest value of the images with 16 bits a channel, or None if all
      images have 8 bits.
  """

  count: int
  sizes: frozenset[Size]
  peak: int | None

  def describe(self) -> str:
    """Returns for example "120 training images of 300x400 to 375x500".

    The two sizes are the smallest and the largest height and width.
    """
    heights, widths = zip(*self.sizes, strict=True)
    low = f"{min(heights)}x{min(widths)}"
    high = f"{max(heights)}x{max(widths)}"
    sizes = low if low == high else f"{low} to {high}"
    return f"{self.count} training images of {sizes}"


def take(source: Source, split: str) -> Survey:
  """Reads the sizes of all images of a split, and the values of 16-bit images.

  Raises:
    UserError: Images cannot be read.
  """
  sizes: set[Size] = set()
  peaks: list[int] = []
  problems: list[str] = []

  def measure(index: int) -> tuple[Size, int | None] | UserError:
    try:
      return source.measure(split, index)
    except UserError as error:
      return error

  count = len(source.splits[split])
  title = f"measuring {split} images"
  for result in progress.in_order(measure, count, title=title):
    if isinstance(result, UserError):
      problems.append(str(result))
      continue
    size, peak = result
    sizes.add(size)
    if peak is not None:
      peaks.append(peak)
  if error := audit.problems_error(problems, count):
    raise error
  return Survey(count, frozenset(sizes), max(peaks, default=None))


def choose_bits(peak: int | None) -> int:
  """Returns the smallest usual number of bits that holds `peak`.

  It is 8, 10, 12, 14 or 16, or 0 if there are no 16-bit images.
  """
  if peak is None:
    return 0
  return next(bits for bits in _BITS if peak < 2**bits)


def choose_canvas(sizes: Iterable[Size], largest: int) -> Size:
  """Returns the smallest canvas that holds all images.

  Args:
    sizes: Heights and widths of the images.
    largest: Images are first shrunk to this side if they are larger; 0 for
      canvases of any size.
  """
  if largest:
    sizes = [fitted_size(size, (largest, largest)) for size in sizes]
  heights, widths = zip(*sizes, strict=True)
  height, width = (
    -(-max(sides) // _STRIDE) * _STRIDE for sides in (heights, widths)
  )
  return height, width


def choose_crop(canvas: Size, largest: int) -> Size:
  """Returns the canvas, or its part of at most `largest` pixels a side."""
  height, width = (min(side, largest or side) for side in canvas)
  return height, width
