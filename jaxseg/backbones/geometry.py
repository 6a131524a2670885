"""Positions of feature maps on the image, for VGG and AlexNet.

The idea (FCN's released net_spec, coord_map.py): a window of kernel k, stride
s and padding p maps position x of its input to (x + p - (k - 1) / 2) / s of
its output. A transposed convolution of kernel k and stride s maps it to
s x + (k - 1) / 2. Composition gives for each map a `Grid`, an affine function
of the image's pixel coordinates, from which FCN's crop offsets follow.
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
  """A convolution or a pooling along one axis.

  Attributes:
    kernel_size: Length of the window.
    stride: Distance between windows.
    padding: Padding on either side.
    ceil_mode: Whether the last, partial window is kept.
  """

  kernel_size: int
  stride: int = 1
  padding: int = 0
  ceil_mode: bool = False

  def size(self, size: int) -> int:
    """Returns the length of the output for an input of length `size`."""
    return pooled_size(
      size, self.kernel_size, self.stride, self.padding, self.ceil_mode
    )


@dataclasses.dataclass(frozen=True)
class Grid:
  """The position of a map on the image, along one axis.

  Pixel x of the image is position `scale * x + shift` of the map.

  Attributes:
    scale: Positions of the map per pixel of the image.
    shift: Position of pixel 0 on the map.
  """

  scale: Fraction = Fraction(1)
  shift: Fraction = Fraction(0)

  def through(self, window: Window) -> "Grid":
    """Returns the grid of this map after a convolution or a pooling."""
    centre = Fraction(window.kernel_size - 1, 2)
    return Grid(
      self.scale / window.stride,
      (self.shift + window.padding - centre) / window.stride,
    )

  def upsampled(self, kernel_size: int, strides: int) -> "Grid":
    """Returns the grid of this map after an unpadded transposed convolution."""
    return Grid(
      self.scale * strides,
      self.shift * strides + Fraction(kernel_size - 1, 2),
    )

  def start_of(self, other: "Grid") -> Fraction:
    """Returns the position of `other`'s origin on this map of equal scale."""
    assert self.scale == other.scale
    return self.shift - other.shift


def levels(backbone: nn.Module) -> dict[str, tuple[Window, ...]]:
  """Returns the windows between the image and each of the backbone's maps.

  Raises:
    UserError: The backbone is dilated, or neither a VGG nor an AlexNet.
  """
  kind = type(backbone)
  if kind not in (VGG, AlexNet) or backbone.output_stride != 32:
    stride = getattr(backbone, "output_stride", "unknown")
    raise UserError(
      f"model.backbone is a {kind.__name__} with output_stride {stride}; "
      "positions of maps on the image are known for VGG and AlexNet with "
      "output_stride 32 only; choose one by a word after the colon, as in "
      "--config=configs/fcn_8s.py:camvid,vgg16"
    )
  return _vgg(backbone) if kind is VGG else _alexnet(backbone)


def _vgg(backbone: VGG) -> dict[str, tuple[Window, ...]]:
  """Returns the windows of a VGG."""
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
  """Returns the windows of an AlexNet."""
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
  """Returns the grid of each of the backbone's maps."""
  found = {}
  for level, windows in levels(backbone).items():
    grid = Grid()
    for window in windows:
      grid = grid.through(window)
    found[level] = grid
  return found


def sizes(backbone: nn.Module, size: int) -> dict[str, int]:
  """Returns the length of each map for an image of length `size`.

  Lengths are 0 where no window fits.
  """
  found = {}
  for level, windows in levels(backbone).items():
    length = size
    for window in windows:
      # An empty map stays empty, even if a later window pads.
      length = max(window.size(length), 0) if length else 0
    found[level] = length
  return found


def check_image(backbone: nn.Module, size: tuple[int, int], least: int = 1):
  """Checks that c5 of an image has at least `least` rows and columns.

  Args:
    backbone: VGG or AlexNet at output stride 32.
    size: Height and width of the image.
    least: Least number of rows and of columns of c5.

  Raises:
    UserError: The image is too small. The message has the smallest size.
  """

  def enough(side: int) -> bool:
    return sizes(backbone, side)["c5"] >= least

  if all(map(enough, size)):
    return
  smallest = next(filter(enough, itertools.count(1)))
  raise UserError(
    f"image of {size[0]}x{size[1]}: expected at least {smallest}x{smallest} "
    "for this network; enlarge the image or model.backbone.padding"
  )
