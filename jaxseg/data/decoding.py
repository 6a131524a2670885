"""Decodes image and mask files with Pillow.

Images become RGB, and their EXIF orientation is applied. Masks are never
converted: the number stored in the file is the class id. Masks in colour or in
a lossy format are therefore refused. Pillow scales grey PNGs of 2 and 4 bits to
0..255; this is undone here.
"""

from collections.abc import Iterator
import contextlib
from pathlib import Path

from jaxtyping import Integer, UInt8
import numpy as np
from PIL import Image, ImageOps

from jaxseg.errors import UserError

_ORIENTATION = 0x0112  # EXIF tag
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_ID_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")
# Pillow's raw mode of a grey PNG of 2 or 4 bits -> the factor of its scaling.
_SCALING = {"L;2": 85, "L;4": 17}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
  """Opens an image file and turns every error in the block into a UserError."""
  try:
    with Image.open(path) as image:
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
    orientation = image.getexif().get(_ORIENTATION, 1)
    width, height = image.size
  turned = orientation in (5, 6, 7, 8)
  return ((width, height) if turned else (height, width)), orientation


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
  """Decodes an image to RGB and applies its EXIF orientation.

  16-bit grey is reduced to its upper 8 bits.

  Raises:
    UserError: The file is damaged or has float pixels.
  """
  with _opened(path) as image:
    if image.mode == "F":
      raise UserError(
        f"{path}: its pixels are floats of unknown range; save the images"
        " with 8 or 16 bits per channel"
      )
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
      wide = np.asarray(image).astype(np.int64)
      grey = (np.clip(wide, 0, 65535) >> 8).astype(np.uint8)
      return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


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
    tile = image.tile[0] if image.tile else None
    factor = _SCALING.get(str(tile[3]), 1) if tile else 1
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
