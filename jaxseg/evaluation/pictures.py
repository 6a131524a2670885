"""Pictures of predictions: indexed PNGs, overlays, and comparison sheets.

An id map is saved with its palette, so that it opens in colour and still
holds ids; above 256 classes as 16-bit grey, which has no palette. Files are
written beside their place and renamed: a name never holds half a picture.
"""

from collections.abc import Sequence
import os
from pathlib import Path

from jaxtyping import Integer, UInt8
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxseg.errors import UserError

Palette = Sequence[Sequence[int]]
Picture = UInt8[np.ndarray, "h w 3"]
Ids = Integer[np.ndarray, "h w"]

MIN_SIDE, MAX_SIDE = 256, 768  # of a cell of a comparison, where possible
GAP, LINE, SWATCH = 12, 22, 14
INK, PAPER = (30, 30, 30), (255, 255, 255)
STRIPES = np.array([[225, 225, 225], [185, 185, 185]], np.uint8)


def save(path: str | Path, image: Image.Image) -> None:
  """Writes a PNG whole or not at all.

  Raises:
    UserError: it cannot be written (full disk, no permission).
  """
  path = Path(path)
  temporary = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(temporary, format="PNG")
    os.replace(temporary, path)
  except OSError as error:
    if temporary.exists():
      temporary.unlink()
    raise UserError(
      f"{path}: cannot be written ({error.strerror or error}); free some space "
      "or choose a folder you may write to"
    ) from error


def indexed(ids: Ids, palette: Palette) -> Image.Image:
  """An image whose pixels are the ids and whose colours are the palette's."""
  if len(palette) > 256:
    return Image.fromarray(ids.astype(np.uint16))
  image = Image.fromarray(ids.astype(np.uint8), mode="P")
  image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
  return image


def colour(ids: Ids, palette: Palette, ignore_label: int | None = None):
  """RGB of an id map; grey stripes where there is no class."""
  table = np.asarray(palette, np.uint8).reshape(-1, 3)
  known = (ids >= 0) & (ids < len(table))
  if ignore_label is not None:
    known &= ids != ignore_label
  if known.all():
    return table[ids]
  rows, cols = np.indices(ids.shape)
  stripes = STRIPES[(rows + cols) // 3 % 2]
  return np.where(known[..., None], table[np.where(known, ids, 0)], stripes)


def overlay(
  image: Picture, ids: Ids, palette: Palette, *, alpha: float = 0.5
) -> Picture:
  """The classes laid over the image, their borders in full colour.

  Black is what palettes give a background; it is left clear.
  """
  colours = colour(ids, palette)
  strength = np.where(_borders(ids), np.float32(1), np.float32(alpha))
  strength = (strength * colours.any(axis=-1))[..., None]
  mixed = (1 - strength) * image + strength * colours
  return np.rint(mixed).astype(np.uint8)


def _borders(ids: Ids) -> np.ndarray:
  """Pixels whose right or lower neighbour is of another class."""
  out = np.zeros(ids.shape, bool)
  out[:-1] |= ids[:-1] != ids[1:]
  out[:, :-1] |= ids[:, :-1] != ids[:, 1:]
  return out


def comparison(
  images: UInt8[np.ndarray, "n h w 3"],
  labels: Integer[np.ndarray, "n h w"],
  predictions: Integer[np.ndarray, "n h w"],
  *,
  palette: Palette,
  class_names: Sequence[str],
  ignore_label: int,
) -> Image.Image:
  """A sheet of image | truth | prediction, a row an example, with a legend.

  Small images are enlarged and large ones reduced by whole factors. Ignored
  pixels are striped, in the prediction shining through it.
  """
  cells = []
  for image, label, ids in zip(images, labels, predictions, strict=True):
    image, label, ids = (_to_display(x) for x in (image, label, ids))
    truth = colour(label, palette, ignore_label)
    predicted = colour(ids, palette)
    # Halfway to the stripes, in more bits than a sum of two bytes needs.
    mixed = (predicted.astype(np.uint16) + truth) // 2
    ignored = (label == ignore_label)[..., None]
    predicted = np.where(ignored, mixed, predicted).astype(np.uint8)
    cells.append([Image.fromarray(x) for x in (image, truth, predicted)])
  present = np.union1d(labels, predictions)
  entries = [
    (tuple(int(v) for v in palette[i]), class_names[i])
    for i in present
    if i != ignore_label and 0 <= i < len(class_names)
  ]
  if ignore_label in present:
    entries.append((None, "ignored"))
  return _sheet(cells, ("image", "truth", "prediction"), entries)


def _to_display(x: np.ndarray) -> np.ndarray:
  """Repeats or drops whole pixels until the sides are fit to look at."""
  grow = -(-MIN_SIDE // min(x.shape[:2]))
  shrink = -(-max(x.shape[:2]) // MAX_SIDE)
  if shrink > 1:
    return x[shrink // 2 :: shrink, shrink // 2 :: shrink]
  grow = min(grow, max(MAX_SIDE // max(x.shape[:2]), 1))
  return x.repeat(grow, axis=0).repeat(grow, axis=1)


def _sheet(cells, titles, entries) -> Image.Image:
  """Pastes rows of equal cells under titles, and a legend below."""
  font = ImageFont.load_default(size=15)
  cell_w, cell_h = cells[0][0].size
  width = len(titles) * (cell_w + GAP) + GAP
  top = LINE + GAP
  bottom = top + len(cells) * (cell_h + GAP)
  column = (
    SWATCH
    + 2 * GAP
    + max((int(font.getlength(name)) for _, name in entries), default=0)
  )
  columns = max((width - GAP) // column, 1)
  lines = -(-len(entries) // columns)
  sheet = Image.new("RGB", (width, bottom + lines * LINE + GAP), PAPER)
  draw = ImageDraw.Draw(sheet)
  for i, title in enumerate(titles):
    draw.text((GAP + i * (cell_w + GAP), GAP // 2), title, INK, font)
  for r, row in enumerate(cells):
    for i, cell in enumerate(row):
      sheet.paste(cell, (GAP + i * (cell_w + GAP), top + r * (cell_h + GAP)))
  stripes = Image.fromarray(colour(np.full((SWATCH, SWATCH), -1), [[0, 0, 0]]))
  for i, (rgb, name) in enumerate(entries):
    x, y = GAP + i % columns * column, bottom + i // columns * LINE
    if rgb is None:
      sheet.paste(stripes, (x, y))
    else:
      draw.rectangle((x, y, x + SWATCH - 1, y + SWATCH - 1), fill=rgb)
    draw.rectangle((x, y, x + SWATCH - 1, y + SWATCH - 1), outline=INK)
    draw.text((x + SWATCH + 6, y - 2), name, INK, font)
  return sheet
