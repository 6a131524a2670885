"""Where examples come from: pairs of files on disk, or a drawing program.

A source lists the examples of each split and reads one of them, as an upright
RGB image and the ids its mask holds. This file finds the pairs; whatever is
missing, extra or misnamed is refused here, before any file is opened.
"""

from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import inspect
from pathlib import Path
from typing import Protocol

from ml_collections import ConfigDict
import numpy as np
from PIL import Image

from jaxseg.data import decoding, shapes
from jaxseg.errors import UserError

_LAYOUTS = {
  "camvid": (
    "train.txt and val.txt of 'image label' lines, or the folders train/,"
    " trainannot/, val/, valannot/"
  ),
  "folder": (
    "images/train, images/val and masks/train, masks/val, or images/ and"
    " masks/ alone, split automatically"
  ),
}


class Source(Protocol):
  """The examples of every split."""

  splits: dict[str, Sequence]

  def name(self, split: str, index: int) -> str:
    """What to call an example in messages: its image's path."""

  def mask_name(self, split: str, index: int) -> str:
    """What to call its mask."""

  def ids(self, split: str, index: int) -> np.ndarray:
    """The mask as the file stores it."""

  def read(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask."""

  def stamp(self) -> list:
    """JSON that changes whenever an example may have changed."""


@dataclasses.dataclass(frozen=True)
class Pair:
  """An image file and its mask file."""

  image: Path
  mask: Path


@dataclasses.dataclass(frozen=True)
class Files:
  """Pairs of files; names are relative to `root`."""

  root: Path
  splits: dict[str, tuple[Pair, ...]]

  def name(self, split: str, index: int) -> str:
    return str(self.splits[split][index].image.relative_to(self.root))

  def mask_name(self, split: str, index: int) -> str:
    return str(self.splits[split][index].mask.relative_to(self.root))

  def ids(self, split: str, index: int) -> np.ndarray:
    """The mask; refused unless its size is that of the upright image."""
    pair = self.splits[split][index]
    size, orientation = decoding.image_header(pair.image)
    ids = decoding.read_mask(pair.mask)
    if ids.shape != size:
      raise _size_error(pair, size, ids.shape, orientation)
    return ids

  def read(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    pair = self.splits[split][index]
    return decoding.read_image(pair.image), decoding.read_mask(pair.mask)

  def stamp(self) -> list:
    def state(path: Path) -> list:
      status = path.stat()
      return [str(path), status.st_size, status.st_mtime_ns]

    return [
      [split, [[state(pair.image), state(pair.mask)] for pair in pairs]]
      for split, pairs in sorted(self.splits.items())
    ]


@dataclasses.dataclass(frozen=True)
class Drawn:
  """The embedded data set `shapes`: nothing to find, nothing to load."""

  splits: dict[str, range] = dataclasses.field(
    default_factory=lambda: {s: range(n) for s, n in shapes.SPLIT_SIZES.items()}
  )

  def name(self, split: str, index: int) -> str:
    return f"shapes/{split}/{index}"

  def mask_name(self, split: str, index: int) -> str:
    return self.name(split, index)

  def ids(self, split: str, index: int) -> np.ndarray:
    return self.read(split, index)[1]

  def read(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    return _draw(split, index)

  def stamp(self) -> list:
    return [hashlib.sha256(inspect.getsource(shapes).encode()).hexdigest()]


@functools.cache
def _draw(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
  """Drawn once: a few tens of MB hold the whole set."""
  return shapes.draw(split, index)


def find(data: ConfigDict) -> Source:
  """Lists the examples of `config.data`; UserError if they do not pair up."""
  if data.name == "shapes":
    return Drawn()
  root = _root(data.name, data.path)
  if data.name == "camvid":
    splits = _camvid(root)
  else:
    splits = _folder(root, data.val_fraction)
  return Files(root, splits)


def _root(name: str, path: str) -> Path:
  expected = f"expected a folder with {_LAYOUTS[name]}"
  if not path:
    raise UserError(
      f"data.path is empty; {expected}: pass --config.data.path=FOLDER"
    )
  root = Path(path).expanduser().absolute()
  if not root.is_dir():
    seen = "is a file" if root.exists() else "does not exist"
    raise UserError(f"data.path={path!r} {seen}; {expected}")
  return root


def _camvid(root: Path) -> dict[str, tuple[Pair, ...]]:
  splits = {}
  for split in ("train", "val", "test"):
    listing = root / f"{split}.txt"
    if listing.is_file():
      splits[split] = _listed_pairs(root, listing)
    elif (root / split).is_dir():
      splits[split] = _matched_pairs(root / split, root / f"{split}annot")
  if not splits:
    raise _layout_error("camvid", root)
  return splits


def _listed_pairs(root: Path, listing: Path) -> tuple[Pair, ...]:
  """Lines 'image label', as the SegNet tutorial's lists have them.

  Those begin with the folder of their author's container; of a path that does
  not exist, the last two parts are taken instead.
  """

  def resolve(name: str, number: int) -> Path:
    tail = Path(*Path(name).parts[-2:])
    for path in (root / name.lstrip("/"), root / tail):
      if path.is_file():
        return path
    raise UserError(
      f"{listing}, line {number}: {name!r} does not exist in {root}; restore"
      " the file or remove the line"
    )

  pairs = []
  for number, line in enumerate(listing.read_text().splitlines(), 1):
    words = line.split()
    if not words:
      continue
    if len(words) != 2:
      raise UserError(
        f"{listing}, line {number}: {len(words)} words; expected two paths,"
        " 'image label'"
      )
    pairs.append(Pair(*(resolve(word, number) for word in words)))
  if not pairs:
    raise UserError(f"{listing} is empty; expected 'image label' lines")
  return tuple(pairs)


def _folder(root: Path, val_fraction: float) -> dict[str, tuple[Pair, ...]]:
  images, masks = root / "images", root / "masks"
  if not (images.is_dir() and masks.is_dir()):
    raise _layout_error("folder", root)
  names = [p.name for p in sorted(images.iterdir()) if _is_visible_dir(p)]
  loose = [p for p in images.iterdir() if _is_image(p)]
  if names and loose:
    raise UserError(
      f"{images} holds {len(loose)} images ({loose[0].name}, ...) beside the"
      f" folders {', '.join(names)}; expected {_LAYOUTS['folder']}: move the"
      " images into one of the folders"
    )
  if not names:
    return _automatic_split(_matched_pairs(images, masks), images, val_fraction)
  splits = {n: _matched_pairs(images / n, masks / n) for n in names}
  if names == ["train"]:
    pairs = splits["train"]
    return _automatic_split(pairs, images / "train", val_fraction)
  return splits


def _automatic_split(
  pairs: tuple[Pair, ...], images: Path, val_fraction: float
) -> dict[str, tuple[Pair, ...]]:
  """Train and val by the order of a hash of each name.

  It depends on the names alone: not on the seed, the disk or the order of
  listing; a file more or less moves at most one other file.
  """
  if not 0 < val_fraction < 1:
    raise UserError(
      f"data.val_fraction={val_fraction}: expected a share between 0 and 1 of"
      f" the images to keep for validation, as {images} has no split of its own"
    )
  if len(pairs) < 2:
    raise UserError(
      f"{images} holds one image; expected two or more, to train on some and"
      " to evaluate on the others"
    )

  def rank(pair: Pair) -> str:
    name = pair.image.relative_to(images).with_suffix("").as_posix()
    return hashlib.sha256(name.encode()).hexdigest()

  count = min(max(1, round(len(pairs) * val_fraction)), len(pairs) - 1)
  val = set(sorted(pairs, key=rank)[:count])
  return {
    "train": tuple(p for p in pairs if p not in val),
    "val": tuple(p for p in pairs if p in val),
  }


def _matched_pairs(images: Path, masks: Path) -> tuple[Pair, ...]:
  """Images and masks of the same name up to the suffix, sorted by name."""
  for folder in (images, masks):
    if not folder.is_dir():
      raise UserError(
        f"{folder} does not exist; expected the"
        f" {'masks' if folder == masks else 'images'} that belong to"
        f" {images if folder == masks else masks}"
      )
  found_images, found_masks = _by_name(images), _by_name(masks)
  if found_images.keys() != found_masks.keys():
    raise _unmatched_error(images, masks, found_images, found_masks)
  return tuple(
    Pair(found_images[name], found_masks[name]) for name in sorted(found_images)
  )


def _by_name(folder: Path) -> dict[str, Path]:
  """The image files below a folder, by relative path without suffix."""
  files = [p for p in sorted(folder.rglob("*")) if _is_image(p)]
  if not files:
    others = sorted({p.suffix or p.name for p in folder.rglob("*")})[:5]
    seen = f"only {', '.join(others)}" if others else "nothing"
    raise UserError(f"{folder} holds {seen}; expected image files")
  result: dict[str, Path] = {}
  for path in files:
    name = path.relative_to(folder).with_suffix("").as_posix()
    if name in result:
      raise UserError(
        f"{folder}: {result[name].name} and {path.name} have one name; keep"
        " one of them"
      )
    result[name] = path
  return result


def _unmatched_error(
  images: Path, masks: Path, found_images: dict, found_masks: dict
) -> UserError:
  """How many on each side, the first five, and what the names suggest."""
  lone_images = sorted(found_images.keys() - found_masks.keys())
  lone_masks = sorted(found_masks.keys() - found_images.keys())
  parts = []
  for kind, partner, folder, lone, found in (
    ("image", "mask", masks, lone_images, found_images),
    ("mask", "image", images, lone_masks, found_masks),
  ):
    if lone:
      listed = ", ".join(found[name].name for name in lone[:5])
      more = ", ..." if len(lone) > 5 else ""
      parts.append(
        f"{len(lone)} of {len(found)} {kind}s have no {partner} in {folder}"
        f" ({listed}{more})"
      )
  hint = _suffix_hint(lone_images, lone_masks) or (
    "an image and its mask have the same name up to the suffix: add what is"
    " missing or remove the partner"
  )
  return UserError(f"{'; '.join(parts)}; {hint}")


def _suffix_hint(lone_images: list[str], lone_masks: list[str]) -> str:
  """Recognises one ending on all lone files of one side: a.jpg, a_mask.png."""
  for short, long, side in (
    (lone_images, lone_masks, "mask"),
    (lone_masks, lone_images, "image"),
  ):
    stems = set(short)
    endings = {
      name[len(stem) :]
      for name in long[:100]
      for stem in stems
      if name.startswith(stem)
    }
    common = [
      ending for ending in endings if {n + ending for n in stems} == set(long)
    ]
    if common:
      return f"the {side}s' names end in {common[0]!r}: rename them without it"
  return ""


def _layout_error(name: str, root: Path) -> UserError:
  inside = sorted(p.name for p in root.iterdir() if p.name[0] != ".")
  listed = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "")
  return UserError(
    f"data.path={str(root)!r} holds {listed or 'nothing'}; expected"
    f" {_LAYOUTS[name]}"
  )


def _size_error(
  pair: Pair, size: tuple[int, int], mask: tuple[int, ...], orientation: int
) -> UserError:
  hint = "make the mask as large as its image"
  if mask == size[::-1] and orientation != 1:
    hint = (
      f"the image is turned by its EXIF orientation {orientation}, the mask is"
      " not: turn the mask, or remove the orientation from the image"
    )
  return UserError(
    f"{pair.mask} is {mask[0]}x{mask[1]} (height x width) but its image"
    f" {pair.image.name} is {size[0]}x{size[1]}; {hint}"
  )


@functools.cache
def _suffixes() -> frozenset[str]:
  """Suffixes of the files Pillow can read."""
  return frozenset(
    suffix
    for suffix, kind in Image.registered_extensions().items()
    if kind in Image.OPEN
  )


def _is_visible_dir(path: Path) -> bool:
  return path.is_dir() and not path.name.startswith((".", "_"))


def _is_image(path: Path) -> bool:
  return path.suffix.lower() in _suffixes() and not path.name.startswith(".")
