"""Decodes image and mask files with Pillow.

Images become RGB, and their EXIF orientation is applied. Images with 16 bits a
channel keep all of them; `eight_bits` reduces them by the range of values that
the data set uses.

Masks are never converted: the number stored in the file is the class id. Masks
in colour or in a lossy format are therefore refused. Pillow scales grey PNGs of
2 and 4 bits to 0..255; this is undone here.
"""

from collections.abc import Iterator
import contextlib
import functools
import os
from pathlib import Path
import struct
import sys

from jaxtyping import Integer, UInt8, UInt16
import numpy as np
from PIL import Image, ImageOps

from jaxseg.errors import UserError

_ORIENTATION = 0x0112  # EXIF tag
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_ID_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")
# Pillow's raw mode of a grey PNG of 2 or 4 bits -> the factor of its scaling.
_SCALING = {"L;2": 85, "L;4": 17}
# Colour modes of which Pillow can read either byte of a 16-bit channel.
_WIDE_COLOURS = ("RGB", "RGBA", "RGBX")

# Pillow warns above 89 million pixels and refuses twice as many, against files
# that exhaust the memory of a server. Users choose their files themselves, and
# slides and aerial images are larger, so the limit here is higher.
Image.MAX_IMAGE_PIXELS = None
_MAX_PIXELS = 2**30

RgbImage = UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
  """Opens an image file and turns every error in the block into a UserError."""
  try:
    with Image.open(path) as image:
      width, height = image.size
      if width * height > _MAX_PIXELS:
        raise UserError(
          f"{path} has {height}x{width} pixels, more than {_MAX_PIXELS:,}; cut"
          " it into tiles"
        )
      yield image
  except UserError:
    raise
  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error,
  # zlib.error, DecompressionBombError, ... on damaged files.
  except Exception as error:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise UserError(
      f"{path}: cannot be read as an image ({reason}); the file is damaged or"
      " of an unknown format: restore it, or remove both image and mask"
    ) from error


def image_header(path: Path) -> tuple[tuple[int, int], int]:
  """Reads the size and the EXIF orientation of an image without decoding it.

  Returns:
    (height, width) after the orientation was applied, and the orientation.
  """
  with _opened(path) as image:
    return _upright_size(path, image)


def _upright_size(
  path: Path, image: Image.Image
) -> tuple[tuple[int, int], int]:
  """Returns (height, width) of the upright image, and its orientation."""
  orientation = 1
  if image.format != "PNG" or _png_has_exif(path, image):
    orientation = image.getexif().get(_ORIENTATION, 1)
  width, height = image.size
  turned = orientation in (5, 6, 7, 8)
  return ((width, height) if turned else (height, width)), orientation


def _png_has_exif(path: Path, image: Image.Image) -> bool:
  """Returns whether a PNG may have EXIF data.

  Pillow decodes a PNG to look for them behind the pixels. This function skips
  the pixels.
  """
  if "exif" in image.info or "Raw profile type exif" in image.info:
    return True
  is_behind = False
  with open(path, "rb") as file:
    file.seek(8)
    while len(header := file.read(8)) == 8:
      length, kind = struct.unpack(">I4s", header)
      if is_behind and kind in (b"eXIf", b"zTXt", b"tEXt", b"iTXt"):
        return True
      is_behind |= kind == b"IDAT"
      file.seek(length + 4, os.SEEK_CUR)
  return False


def measure(path: Path) -> tuple[tuple[int, int], int | None]:
  """Measures an image; it is decoded only if it has 16 bits a channel.

  Returns:
    (height, width) of the upright image, and its largest value, or None for
    8 bits a channel.

  Raises:
    UserError: As `read_image`.
  """
  with _opened(path) as image:
    wide = _is_wide(image)
    size, _ = _upright_size(path, image)
  return size, int(read_image(path).max()) if wide else None


def read_image(path: Path) -> RgbImage:
  """Decodes an image to RGB and applies its EXIF orientation.

  Returns:
    The image with 8 or 16 bits a channel, as the file has them.

  Raises:
    UserError: The file is damaged, or its pixels are floats or lie outside
      0..65535.
  """
  with _opened(path) as image:
    if image.mode == "F":
      raise UserError(
        f"{path}: its pixels are floats of unknown range; save the images"
        " with 8 or 16 bits per channel"
      )
    wide = _is_wide(image)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
      return _grey(path, np.asarray(image))
    high = np.array(image.convert("RGB"))
  if not wide:
    return high
  with _opened(path) as image:
    # Pillow reads the upper byte of each channel. Read as numbers of the other
    # byte order, the lower byte is the upper one.
    image.tile = [
      tile._replace(args=_other_byte_order(tile.args)) for tile in image.tile
    ]
    low = np.array(ImageOps.exif_transpose(image).convert("RGB"))
  return high.astype(np.uint16) << 8 | low


def eight_bits(
  image: RgbImage, bits: int, name: str = "the image"
) -> UInt8[np.ndarray, "h w 3"]:
  """Scales the values 0..2**bits - 1 of a 16-bit image to 0..255.

  Larger values become 255. Images of 8 bits stay as they are.

  Args:
    image: RGB image.
    bits: Bits that the data set uses, `config.data.bits`; 0 if all of its
      images have 8 bits a channel.
    name: Name of the image, for messages.

  Raises:
    UserError: The image has 16 bits, and `bits` is 0.
  """
  if image.dtype == np.uint8:
    return image
  if not bits:
    raise UserError(
      f"{name} has 16 bits a channel (values up to {image.max()}), but the"
      " training images have 8; pass the bits that it uses, such as"
      " --config.data.bits=12"
    )
  return _scaling_table(bits)[image]


@functools.cache
def _scaling_table(bits: int) -> UInt8[np.ndarray, "65536"]:
  """Returns the 8-bit value of each 16-bit value."""
  scaled = np.round(np.arange(2**16) * (255 / (2**bits - 1)))
  return np.minimum(scaled, 255).astype(np.uint8)


def _is_wide(image: Image.Image) -> bool:
  """Returns whether an image that is not loaded has 16 bits a channel."""
  if image.mode.startswith("I"):
    return True
  mode, _, depth = _raw_mode(image).partition(";")
  if mode == "LA" and depth.startswith("16"):
    raise UserError(
      f"{image.filename}: grey of 16 bits with transparency cannot be read;"
      " save the image without its alpha channel"
    )
  return mode in _WIDE_COLOURS and depth in ("16B", "16L", "16N")


def _raw_mode(image: Image.Image) -> str:
  """Returns Pillow's name of the pixel format in the file, if it has one."""
  args = image.tile[0].args if image.tile else ""
  first = args[0] if isinstance(args, tuple) and args else args
  return first if isinstance(first, str) else ""


def _other_byte_order(args):
  """Swaps the byte order in the arguments of one of Pillow's decoders."""
  if isinstance(args, tuple):
    return (_other_byte_order(args[0]), *args[1:])
  native = "L" if sys.byteorder == "little" else "B"
  order = args[-1] if args[-1] != "N" else native
  return args[:-1] + {"L": "B", "B": "L"}[order]


def _grey(
  path: Path, values: Integer[np.ndarray, "h w"]
) -> UInt16[np.ndarray, "h w 3"]:
  """Returns grey values of more than 8 bits as RGB."""
  low, high = int(values.min()), int(values.max())
  if low < 0 or high > 65535:
    raise UserError(
      f"{path}: its grey values are {low}..{high}; expected values in 0..65535:"
      " shift or scale the images of the data set alike"
    )
  return np.repeat(values.astype(np.uint16)[..., None], 3, axis=2)


def read_mask(path: Path) -> Integer[np.ndarray, "h w"]:
  """Decodes a mask to the ids in the file, in the file's integer type.

  Raises:
    UserError: The file is damaged, is in a lossy format or holds colours
      instead of ids.
  """
  with _opened(path) as image:
    if image.format in _LOSSY:
      raise UserError(
        f"{path}: a mask must not be {image.format}, because lossy"
        " compression changes ids along edges; export the masks again as PNG"
      )
    if image.mode not in _ID_MODES:
      raise _colour_error(path, image)
    factor = _SCALING.get(_raw_mode(image), 1)
    ids = np.array(image)
  return ids.astype(np.uint8) // factor if ids.dtype.itemsize == 1 else ids


def _colour_error(path: Path, image: Image.Image) -> UserError:
  """Returns an error that lists the colours of a mask without ids."""
  expected = (
    "expected a mask of one channel (PNG of mode P, L or 16 bits) whose values"
    " are the class ids 0, 1, 2, ..."
  )
  if image.mode == "F":
    return UserError(f"{path}: its pixels are floats; {expected}")
  colours = image.getcolors(maxcolors=image.width * image.height) or []
  colours.sort(key=lambda item: (-item[0], item[1]))
  listed = ", ".join(f"{c} in {count} pixels" for count, c in colours[:8])
  more = f" and {len(colours) - 8} more" if len(colours) > 8 else ""
  fix = "replace each colour by its class id"
  if image.mode == "RGB" and all(len(set(c)) == 1 for _, c in colours):
    fix = "the three channels are equal; save one of them"
  return UserError(
    f"{path}: holds {image.mode} colours, not class ids: {listed}{more};"
    f" {expected}: {fix}"
  )
