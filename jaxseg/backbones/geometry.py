"""Where the positions of a map stand on the image, for VGG and AlexNet.

The idea (FCN's released net_spec, coord_map.py): a window of kernel k, stride
s and padding p takes position x of its input to (x + p - (k - 1) / 2) / s of
its output, a transposed convolution of kernel k and stride s takes it to
s x + (k - 1) / 2. Chained, each map is a `Grid`, an affine function of the
image's pixels, and how many rows to crop follows instead of being typed in.
"""

import dataclasses
from fractions import Fraction
import itertools

import flax.linen as nn

from jaxseg.backbones.alexnet import AlexNet
from jaxseg.backbones.vgg import VGG
from jaxseg.errors import UserError
from jaxseg.layers.pool import pooled_size


@dataclasses.dataclass(frozen=True)
class Window:
  """A convolution or a pooling, along one axis."""

  kernel_size: int
  stride: int = 1
  padding: int = 0
  ceil_mode: bool = False

  def size(self, size: int) -> int:
    """Length of the output."""
    return pooled_size(
      size, self.kernel_size, self.stride, self.padding, self.ceil_mode
    )


@dataclasses.dataclass(frozen=True)
class Grid:
  """Pixel x of the image is position `scale * x + shift` of a map."""

  scale: Fraction = Fraction(1)
  shift: Fraction = Fraction(0)

  def through(self, window: Window) -> "Grid":
    """The grid of what a window makes of this map."""
    centre = Fraction(window.kernel_size - 1, 2)
    return Grid(
      self.scale / window.stride,
      (self.shift + window.padding - centre) / window.stride,
    )

  def upsampled(self, kernel_size: int, strides: int) -> "Grid":
    """The grid of what an unpadded transposed convolution makes of it."""
    return Grid(
      self.scale * strides,
      self.shift * strides + Fraction(kernel_size - 1, 2),
    )

  def start_of(self, other: "Grid") -> Fraction:
    """The position here that `other`, a map as fine as this, begins at."""
    assert self.scale == other.scale
    return self.shift - other.shift


def levels(backbone: nn.Module) -> dict[str, tuple[Window, ...]]:
  """The windows between the image and each of the backbone's maps.

  Raises:
    UserError: neither a VGG nor an AlexNet, or one with dilation.
  """
  kind = type(backbone)
  if kind not in (VGG, AlexNet) or backbone.output_stride != 32:
    stride = getattr(backbone, "output_stride", "of its own")
    raise UserError(
      f"backbone {kind.__name__} with output_stride {stride}: the places of "
      "its maps on the image are known for VGG and AlexNet at output_stride "
      "32; choose one of those, such as vgg16 or caffenet"
    )
  return _vgg(backbone) if kind is VGG else _alexnet(backbone)


def _vgg(backbone: VGG) -> dict[str, tuple[Window, ...]]:
  inner = int(backbone.pad_inner)
  width = backbone.pool_window
  pool = Window(width, 2, (width - 1) // 2, backbone.ceil_mode)
  found, windows = {}, []
  for s, size in enumerate(backbone.stage_sizes, start=1):
    windows += [Window(3, padding=inner)] * size
    if s == 1:
      windows[0] = Window(3, padding=backbone.padding)
    found[f"conv{s}"] = tuple(windows)
    windows.append(pool)
    found[f"c{s}"] = tuple(windows)
  return found


def _alexnet(backbone: AlexNet) -> dict[str, tuple[Window, ...]]:
  pool = Window(3, 2, 0, backbone.ceil_mode)
  inner = Window(3, padding=1)
  c2 = (Window(11, 4, backbone.padding),)
  pool1 = (*c2, pool)
  c3 = (*pool1, Window(5, padding=2))
  pool2 = (*c3, pool)
  conv3 = (*pool2, inner)
  conv4 = (*conv3, inner)
  c4 = (*conv4, inner)
  return {
    "c2": c2,
    "pool1": pool1,
    "c3": c3,
    "pool2": pool2,
    "conv3": conv3,
    "conv4": conv4,
    "c4": c4,
    "c5": (*c4, pool),
  }


def grids(backbone: nn.Module) -> dict[str, Grid]:
  """The grid of each map."""
  found = {}
  for level, windows in levels(backbone).items():
    grid = Grid()
    for window in windows:
      grid = grid.through(window)
    found[level] = grid
  return found


def sizes(backbone: nn.Module, size: int) -> dict[str, int]:
  """Length of each map for an image of `size`; 0 where nothing is left."""
  found = {}
  for level, windows in levels(backbone).items():
    length = size
    for window in windows:
      # What is empty stays empty, however much a later window pads.
      length = max(window.size(length), 0) if length else 0
    found[level] = length
  return found


def check_image(backbone: nn.Module, size: tuple[int, int], least: int = 1):
  """Refuses an image whose c5 would have less than `least` rows or columns.

  Raises:
    UserError: the error says which image is the smallest.
  """

  def enough(side: int) -> bool:
    return sizes(backbone, side)["c5"] >= least

  if all(map(enough, size)):
    return
  smallest = next(filter(enough, itertools.count(1)))
  raise UserError(
    f"image of {size[0]}x{size[1]}: too small for this network, which takes "
    f"{smallest}x{smallest} at least; enlarge it, or backbone.padding"
  )
