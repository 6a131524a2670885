"""Pictures of predictions: indexed PNGs, overlays, and comparison sheets.

A map of class ids is saved as an indexed PNG: viewers show the colours of its
palette, and its pixel values are the ids. With more than 256 classes it is
saved as 16-bit grey, which has no palette.
"""

from collections.abc import Sequence

from etils import epath
from jaxtyping import Integer, UInt8
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxseg import files

Palette = Sequence[Sequence[int]]
Picture = UInt8[np.ndarray, "h w 3"]
Ids = Integer[np.ndarray, "h w"]

# Bounds of the sides of a cell in a comparison, where whole factors allow it.
MIN_SIDE, MAX_SIDE = 256, 768
GAP, LINE, SWATCH = 12, 22, 14
LEGEND_ROWS = 30  # Lines of a legend, before it has more columns.
STRIPE = 2**21  # Number of pixels that `overlay` mixes at a time.
INK, PAPER = (30, 30, 30), (255, 255, 255)
STRIPES = np.array([[225, 225, 225], [185, 185, 185]], np.uint8)


def save(path: epath.PathLike, image: Image.Image) -> None:
  """Writes a PNG file.

  Raises:
    UserError: The disk is full or the file cannot be written.
  """
  with files.atomic_write(path) as file:
    image.save(file, format="PNG")


def indexed(ids: Ids, palette: Palette) -> Image.Image:
  """Returns an image whose pixel values are ids, shown in palette colours."""
  if len(palette) > 256:
    return Image.fromarray(ids.astype(np.uint16))
  image = Image.fromarray(ids.astype(np.uint8), mode="P")
  image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
  return image


def colour(
  ids: Ids, palette: Palette, ignore_label: int | None = None
) -> Picture:
  """Returns the palette's colours of `ids`, grey stripes where unknown.

  Ids outside of the palette and the ignore label are unknown.
  """
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
  """Blends class colours into an image.

  Borders between classes are opaque. Classes whose colour is black stay
  transparent, because palettes give this colour to the background.

  It works in stripes of rows, so that an image of any size fits in memory.

  Args:
    image: The image.
    ids: Class id of each pixel.
    palette: Colour of each class.
    alpha: Opacity of the class colours between the borders.
  """
  out = np.empty_like(image)
  rows = max(STRIPE // ids.shape[1], 1)
  for start in range(0, len(ids), rows):
    part = slice(start, start + rows)
    colours = colour(ids[part], palette)
    # The last border of a stripe depends on the next row.
    borders = _borders(ids[start : start + rows + 1])[: len(colours)]
    strength = np.where(borders, np.float32(1), np.float32(alpha))
    strength = (strength * colours.any(axis=-1))[..., None]
    out[part] = np.rint((1 - strength) * image[part] + strength * colours)
  return out


def legend(class_names: Sequence[str], palette: Palette) -> Image.Image:
  """Draws the colour and the name of each class, in as many columns as needed.

  Args:
    class_names: Name of each class.
    palette: Colour of each class.
  """
  entries = [
    (tuple(int(v) for v in rgb), name if any(rgb) else f"{name} (transparent)")
    for name, rgb in zip(class_names, palette, strict=True)
  ]
  return _legend(entries, columns=-(-len(entries) // LEGEND_ROWS))


def _borders(ids: Ids) -> np.ndarray:
  """Returns True where the right or lower neighbour has another class."""
  out = np.zeros(ids.shape, bool)
  out[:-1] |= ids[:-1] != ids[1:]
  out[:, :-1] |= ids[:, :-1] != ids[:, 1:]
  return out


def comparison(
  images: Sequence[np.ndarray],
  labels: Sequence[np.ndarray],
  predictions: Sequence[np.ndarray],
  *,
  palette: Palette,
  class_names: Sequence[str],
  ignore_label: int,
) -> Image.Image:
  """Draws image | truth | prediction, one example a row, and a legend.

  Small images are enlarged and large ones reduced by one whole factor. Ignored
  pixels are striped in the truth and half striped in the prediction.

  Args:
    images: Images `[h, w, 3]`, uint8, which may have different sizes.
    labels: Class id, or ignore label, of each pixel of each image, `[h, w]`.
    predictions: Predicted class id of each pixel of each image, `[h, w]`.
    palette: Colour of each class.
    class_names: Name of each class.
    ignore_label: Id of pixels that count nowhere.
  """
  cells = []
  sides = np.max([label.shape for label in labels], axis=0)
  for image, label, ids in zip(images, labels, predictions, strict=True):
    image, label, ids = (_to_display(x, sides) for x in (image, label, ids))
    truth = colour(label, palette, ignore_label)
    predicted = colour(ids, palette)
    # The sum of two bytes does not fit into one.
    mixed = (predicted.astype(np.uint16) + truth) // 2
    ignored = (label == ignore_label)[..., None]
    predicted = np.where(ignored, mixed, predicted).astype(np.uint8)
    cells.append([Image.fromarray(x) for x in (image, truth, predicted)])
  present = np.unique(
    np.concatenate([*map(np.unique, (*labels, *predictions))])
  )
  entries = [
    (tuple(int(v) for v in palette[i]), class_names[i])
    for i in present
    if i != ignore_label and 0 <= i < len(class_names)
  ]
  if ignore_label in present:
    entries.append((None, "ignored"))
  return _sheet(cells, ("image", "truth", "prediction"), entries)


def _to_display(x: np.ndarray, sides: np.ndarray) -> np.ndarray:
  """Repeats or drops pixels until the largest sides suit a screen."""
  grow = -(-MIN_SIDE // min(sides))
  shrink = -(-max(sides) // MAX_SIDE)
  if shrink > 1:
    # A side that is shorter than half the factor keeps its middle pixel.
    rows, columns = (min(shrink // 2, side // 2) for side in x.shape[:2])
    return x[rows::shrink, columns::shrink]
  grow = min(grow, max(MAX_SIDE // max(sides), 1))
  return x.repeat(grow, axis=0).repeat(grow, axis=1)


def _sheet(cells, titles, entries) -> Image.Image:
  """Pastes rows of cells below their titles and above the legend."""
  font = ImageFont.load_default(size=15)
  cell_w, cell_h = np.max([row[0].size for row in cells], axis=0).tolist()
  width = len(titles) * (cell_w + GAP) + GAP
  top = LINE + GAP
  bottom = top + len(cells) * (cell_h + GAP)
  below = _legend(entries, columns=max((width - GAP) // _column(entries), 1))
  sheet = Image.new("RGB", (width, bottom - GAP + below.height), PAPER)
  draw = ImageDraw.Draw(sheet)
  for i, title in enumerate(titles):
    draw.text((GAP + i * (cell_w + GAP), GAP // 2), title, INK, font)
  for r, row in enumerate(cells):
    for i, cell in enumerate(row):
      sheet.paste(cell, (GAP + i * (cell_w + GAP), top + r * (cell_h + GAP)))
  sheet.paste(below, (0, bottom - GAP))
  return sheet


def _column(entries) -> int:
  """Returns the width of a column of a legend."""
  font = ImageFont.load_default(size=15)
  names = max((int(font.getlength(name)) for _, name in entries), default=0)
  return SWATCH + 2 * GAP + names


def _legend(entries, columns: int) -> Image.Image:
  """Draws (colour or None for stripes, name) pairs row by row."""
  font = ImageFont.load_default(size=15)
  column, lines = _column(entries), -(-len(entries) // columns)
  size = (GAP + columns * column, 2 * GAP + lines * LINE)
  picture = Image.new("RGB", size, PAPER)
  draw = ImageDraw.Draw(picture)
  stripes = Image.fromarray(colour(np.full((SWATCH, SWATCH), -1), [[0, 0, 0]]))
  for i, (rgb, name) in enumerate(entries):
    x, y = GAP + i % columns * column, GAP + i // columns * LINE
    if rgb is None:
      picture.paste(stripes, (x, y))
    else:
      draw.rectangle((x, y, x + SWATCH - 1, y + SWATCH - 1), fill=rgb)
    draw.rectangle((x, y, x + SWATCH - 1, y + SWATCH - 1), outline=INK)
    draw.text((x + SWATCH + 6, y - 2), name, INK, font)
  return picture
