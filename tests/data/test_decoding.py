"""Images of every kind are read upright and as RGB, masks as stored ids."""

import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from jaxseg.data.decoding import (
  eight_bits,
  image_header,
  measure,
  read_image,
  read_mask,
)
from jaxseg.errors import UserError


def write_png(path, size, bits: int, colour: int, rows: bytes) -> None:
  """Writes a PNG of a kind that Pillow cannot write."""

  def chunk(kind, body):
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

  height, width = size
  header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
  path.write_bytes(
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", zlib.compress(rows))
    + chunk(b"IEND", b"")
  )


def narrow_png(path, ids: np.ndarray, bits: int) -> None:
  """Writes a grey PNG of 2 or 4 bits a pixel."""
  rows = b""
  for row in ids:
    text = "".join(f"{i:0{bits}b}" for i in row)
    text += "0" * (-len(text) % 8)
    rows += b"\0" + bytes(
      int(text[i : i + 8], 2) for i in range(0, len(text), 8)
    )
  write_png(path, ids.shape, bits, 0, rows)


def wide_png(path, values: np.ndarray) -> None:
  """Writes a colour PNG of 16 bits a channel, with or without alpha."""
  height, width, channels = values.shape
  rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
  write_png(path, (height, width), 16, {2: 4, 3: 2, 4: 6}[channels], rows)


def wide_tiff(path, values: np.ndarray) -> None:
  """Writes a colour TIFF of 16 bits a channel, without compression."""
  height, width, channels = values.shape
  pixels = values.astype("<u2").tobytes()
  start = 8 + 2 * channels  # The bits of each channel precede the pixels.
  tags = [
    (256, 4, 1, width),
    (257, 4, 1, height),
    (258, 3, channels, 8),
    (259, 3, 1, 1),
    (262, 3, 1, 2),
    (273, 4, 1, start),
    (277, 3, 1, channels),
    (278, 4, 1, height),
    (279, 4, 1, len(pixels)),
  ]
  path.write_bytes(
    struct.pack("<2sHI", b"II", 42, start + len(pixels))
    + struct.pack(f"<{channels}H", *[16] * channels)
    + pixels
    + struct.pack("<H", len(tags))
    + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    + struct.pack("<I", 0)
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
  colours = Image.fromarray(rgb).quantize(256)
  colours.save(path)
  expected = np.asarray(colours.convert("RGB"))
  np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("kind", ["grey", "int32", "RGB", "RGBA", "TIFF"])
def test_images_of_16_bits_keep_all_of_them(tmp_path, kind):
  values = np.random.default_rng(0).integers(0, 65536, (4, 6, 4), np.uint16)
  path = tmp_path / ("image.png" if kind != "int32" else "image.tif")
  if kind == "grey":
    Image.fromarray(values[..., 0]).save(path)
  elif kind == "int32":
    Image.fromarray(values[..., 0].astype(np.int32)).save(path)
  elif kind == "TIFF":
    wide_tiff(path, values[..., :3])
  else:
    wide_png(path, values[..., : len(kind)])
  expected = values[..., [0, 0, 0] if kind in ("grey", "int32") else [0, 1, 2]]
  found = read_image(path)
  assert found.dtype == np.uint16
  np.testing.assert_array_equal(found, expected)
  assert measure(path) == ((4, 6), int(expected.max()))


def test_16_bits_are_scaled_by_the_bits_in_use():
  """White is 2**bits - 1; the scale is linear, and larger values are white."""
  values = np.array([0, 1, 254, 255, 2048, 4095, 4096, 65535], np.uint16)
  image = np.repeat(values[None, :, None], 3, axis=2)
  for bits, expected in {
    8: [0, 1, 254, 255, 255, 255, 255, 255],
    12: [0, 0, 16, 16, 128, 255, 255, 255],
    16: [0, 0, 1, 1, 8, 16, 16, 255],
  }.items():
    assert eight_bits(image, bits)[0, :, 0].tolist() == expected
  narrow = image.astype(np.uint8)
  assert eight_bits(narrow, 0) is narrow
  with pytest.raises(UserError, match=r"a.png has 16 bits.*data.bits=12"):
    eight_bits(image, 0, "a.png")


def test_grey_of_16_bits_that_is_no_image_is_refused(tmp_path):
  path = tmp_path / "image.tif"
  for value in (-1000, 70000):
    Image.fromarray(np.full((2, 2), value, np.int32)).save(path)
    with pytest.raises(UserError, match=f"image.tif: its grey .* {value}"):
      read_image(path)
  wide_png(tmp_path / "image.png", np.ones((2, 2, 2), np.uint16))
  with pytest.raises(UserError, match="image.png: grey of 16.* alpha"):
    read_image(tmp_path / "image.png")


def test_large_images_are_read_up_to_a_limit(tmp_path, recwarn):
  """Pillow alone warns above 89 million pixels and refuses 200 million."""
  path = tmp_path / "image.png"
  write_png(path, (10_000, 20_000), 8, 0, b"")
  assert image_header(path) == ((10_000, 20_000), 1)
  write_png(path, (100_000, 20_000), 8, 0, b"")
  with pytest.raises(
    UserError, match="100000x20000 pixels.* cut it into tiles"
  ):
    image_header(path)
  assert not recwarn.list


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


def test_exif_data_behind_the_pixels_of_a_png(tmp_path):
  path = tmp_path / "image.png"
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.new("L", (5, 3)).save(path, exif=exif)
  content = path.read_bytes()
  start, pixels = content.index(b"eXIf") - 4, content.index(b"IDAT") - 4
  end = content.index(b"IEND") - 4
  assert start < pixels
  path.write_bytes(
    content[:start]
    + content[pixels:end]
    + content[start:pixels]
    + content[end:]
  )
  assert image_header(path) == ((5, 3), 6)
  assert read_image(path).shape == (5, 3, 3)
