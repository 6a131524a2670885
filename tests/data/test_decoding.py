"""Images of every kind are read upright and as RGB, masks as stored ids."""

import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from jaxseg.data.decoding import image_header, read_image, read_mask
from jaxseg.errors import UserError


def narrow_png(path, ids: np.ndarray, bits: int) -> None:
  """Writes a grey PNG of 2 or 4 bits a pixel, which Pillow cannot write."""

  def chunk(kind, body):
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

  height, width = ids.shape
  rows = b""
  for row in ids:
    text = "".join(f"{i:0{bits}b}" for i in row)
    text += "0" * (-len(text) % 8)
    rows += b"\0" + bytes(
      int(text[i : i + 8], 2) for i in range(0, len(text), 8)
    )
  header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
  path.write_bytes(
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", zlib.compress(rows))
    + chunk(b"IEND", b"")
  )


@pytest.mark.parametrize("mode", ["P", "L", "1", "I;16", "I"])
def test_masks_are_read_as_ids(tmp_path, mode):
  top = {"1": 2, "I;16": 1000, "I": 70000}.get(mode, 256)
  ids = np.random.default_rng(0).integers(0, top, (5, 7))
  if mode == "P":
    mask = Image.fromarray(ids.astype(np.uint8))
    mask.putpalette(bytes(range(255, -1, -1)) * 3)
    assert mask.mode == "P"
  elif mode == "1":
    mask = Image.fromarray(ids.astype(bool))
  else:
    kind = {"L": np.uint8, "I;16": np.uint16, "I": np.int32}[mode]
    mask = Image.fromarray(ids.astype(kind))
  path = tmp_path / ("mask.tif" if mode == "I" else "mask.png")
  mask.save(path)
  with Image.open(path) as stored:
    assert stored.mode == mode
  np.testing.assert_array_equal(read_mask(path), ids)


@pytest.mark.parametrize("bits", [2, 4])
def test_narrow_grey_masks_are_not_stretched(tmp_path, bits):
  ids = np.arange(15).reshape(3, 5) % 2**bits
  narrow_png(tmp_path / "mask.png", ids, bits)
  np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), ids)


def test_images_of_every_mode_become_rgb(tmp_path):
  rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
  path = tmp_path / "image.png"
  Image.fromarray(rgb).save(path)
  np.testing.assert_array_equal(read_image(path), rgb)
  Image.fromarray(rgb[..., 0]).save(path)
  np.testing.assert_array_equal(read_image(path), rgb[..., [0, 0, 0]])
  rgba = np.concatenate([rgb, rgb[..., :1]], axis=2)
  Image.fromarray(rgba).save(path)
  np.testing.assert_array_equal(read_image(path), rgb)
  wide = rgb[..., 0].astype(np.uint16) * 257
  Image.fromarray(wide).save(path)
  np.testing.assert_array_equal(read_image(path), rgb[..., [0, 0, 0]])
  colours = Image.fromarray(rgb).quantize(256)
  colours.save(path)
  expected = np.asarray(colours.convert("RGB"))
  np.testing.assert_array_equal(read_image(path), expected)


def test_float_image_is_refused(tmp_path):
  Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "image.tif")
  with pytest.raises(UserError, match="image.tif: its pixels are floats"):
    read_image(tmp_path / "image.tif")


# Maps an EXIF orientation (TIFF 6.0, tag 274) to what makes the image upright.
UPRIGHT = {
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
  8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path, orientation):
  stored = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(stored).save(tmp_path / "image.png", exif=exif)
  upright = UPRIGHT[orientation](stored)
  np.testing.assert_array_equal(read_image(tmp_path / "image.png"), upright)
  size, found = image_header(tmp_path / "image.png")
  assert (size, found) == (upright.shape[:2], orientation)
