"""Sources of examples: pairs of files, or the drawn data set `shapes`.

A source lists the examples of each split and reads single examples: an upright
RGB image and the ids that its mask file stores. `find` pairs images and masks
and raises UserError for files that are missing, extra or misnamed, before any
file is opened.
"""

from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import inspect
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from jaxseg.data import decoding, pairing, shapes
from jaxseg.data.pairing import Pair
from jaxseg.errors import UserError

ALL = "all"  # The split of a folder that is not split.

_LAYOUTS = {
  "camvid": (
    "train.txt and val.txt of 'image label' lines, or the folders train/,"
    " trainannot/, val/, valannot/"
  ),
  "folder": (
    "images/train, images/val and masks/train, masks/val, or images/ and"
    " masks/ alone, split automatically"
  ),
  "isbi_em": "train/image and train/label, files of the same names in both",
}


@runtime_checkable
class Source(Protocol):
  """The original examples of a data set.

  Attributes:
    splits: Examples of each split.
    stamp: JSON value that changes whenever an example may have changed.
  """

  splits: dict[str, Sequence]
  stamp: list

  def name(self, split: str, index: int) -> str:
    """Returns the path of the image of an example, for messages."""

  def mask_name(self, split: str, index: int) -> str:
    """Returns the path of the mask of an example, for messages."""

  def size(self, split: str, index: int) -> tuple[int, int]:
    """Returns height and width of an example."""

  def ids(self, split: str, index: int) -> np.ndarray:
    """Returns the ids of an example as its mask file stores them."""

  def measure(
    self, split: str, index: int
  ) -> tuple[tuple[int, int], int | None]:
    """Returns size and values of an image, see `decoding.measure`."""

  def read(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image of an example, and the ids of its mask."""


@dataclasses.dataclass(frozen=True)
class Files:
  """Pairs of an image file and a mask file.

  Attributes:
    root: Folder of the data set; names are relative to it.
    splits: Pairs of files of each split.
  """

  root: Path
  splits: dict[str, tuple[Pair, ...]]

  def name(self, split: str, index: int) -> str:
    return str(self.splits[split][index].image.relative_to(self.root))

  def mask_name(self, split: str, index: int) -> str:
    return str(self.splits[split][index].mask.relative_to(self.root))

  def size(self, split: str, index: int) -> tuple[int, int]:
    return decoding.image_header(self.splits[split][index].image)[0]

  def ids(self, split: str, index: int) -> np.ndarray:
    """Returns the ids of a mask after checking its size.

    Raises:
      UserError: A file cannot be read, or the size of the mask differs from
        that of the upright image.
    """
    pair = self.splits[split][index]
    size, orientation = decoding.image_header(pair.image)
    ids = decoding.read_mask(pair.mask)
    if ids.shape != size:
      raise _size_error(pair, size, ids.shape, orientation)
    return ids

  def measure(
    self, split: str, index: int
  ) -> tuple[tuple[int, int], int | None]:
    return decoding.measure(self.splits[split][index].image)

  def read(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    pair = self.splits[split][index]
    return decoding.read_image(pair.image), decoding.read_mask(pair.mask)

  @functools.cached_property
  def stamp(self) -> list:
    """Path, size and modification time of each file."""

    def state(path: Path) -> list:
      status = path.stat()
      return [str(path), status.st_size, status.st_mtime_ns]

    return [
      [split, [[state(pair.image), state(pair.mask)] for pair in pairs]]
      for split, pairs in sorted(self.splits.items())
    ]


@dataclasses.dataclass(frozen=True)
class Drawn:
  """The data set `shapes`, which is drawn and needs no files.

  Attributes:
    splits: Indices of the examples of each split.
  """

  splits: dict[str, range] = dataclasses.field(
    default_factory=lambda: {s: range(n) for s, n in shapes.SPLIT_SIZES.items()}
  )
  _drawn: dict = dataclasses.field(default_factory=dict, repr=False)

  def name(self, split: str, index: int) -> str:
    return f"shapes/{split}/{index}"

  def mask_name(self, split: str, index: int) -> str:
    return self.name(split, index)

  def size(self, split: str, index: int) -> tuple[int, int]:
    height, width = self.read(split, index)[1].shape
    return height, width

  def ids(self, split: str, index: int) -> np.ndarray:
    return self.read(split, index)[1]

  def measure(
    self, split: str, index: int
  ) -> tuple[tuple[int, int], int | None]:
    return shapes.SIZE, None

  def read(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    # Each example is drawn once; all of them take a few tens of MB.
    if (split, index) not in self._drawn:
      self._drawn[split, index] = shapes.draw(split, index)
    return self._drawn[split, index]

  @property
  def stamp(self) -> list:
    """Hash of the code that draws the examples."""
    return [hashlib.sha256(inspect.getsource(shapes).encode()).hexdigest()]


def find(
  name: str, path: str = "", val_fraction: float = 0.1, *, whole: bool = False
) -> Source:
  """Finds the original examples of a data set.

  Args:
    name: Key of `datasets.DATASETS`.
    path: Folder of the original files; unused by `shapes`.
    val_fraction: Share of the images that are kept for validation if a folder
      has no splits.
    whole: Whether the pairs of a folder without splits form one split, `ALL`.

  Raises:
    UserError: Files are missing, or images and masks do not match.
  """
  if name == "shapes":
    return Drawn()
  root = _root(name, path)
  if name == "camvid":
    splits = _camvid(root)
  elif name == "isbi_em":
    splits = _isbi_em(root)
  else:
    splits = _folder(root, None if whole else val_fraction)
  return Files(root, splits)


def _root(name: str, path: str) -> Path:
  """Returns the folder of a data set as an absolute path, if it exists."""
  expected = (
    f"expected a folder with {_LAYOUTS[name]}: pass --config.data.path=FOLDER"
  )
  if not path:
    raise UserError(f"data.path is empty; {expected}")
  root = Path(path).expanduser().absolute()
  if not root.is_dir():
    seen = "is a file" if root.exists() else "does not exist"
    raise UserError(f"data.path={path!r} {seen}; {expected}")
  return root


def _camvid(root: Path) -> dict[str, tuple[Pair, ...]]:
  """Pairs the files of each split that has a list or a folder."""
  splits = {}
  for split in ("train", "val", "test"):
    listing = root / f"{split}.txt"
    if listing.is_file():
      splits[split] = _listed_pairs(root, listing)
    elif (root / split).is_dir():
      splits[split] = pairing.match(root / split, root / f"{split}annot")
  if not splits:
    raise _layout_error("camvid", root)
  return splits


def _isbi_em(root: Path) -> dict[str, tuple[Pair, ...]]:
  """Splits a stack of sections; the last fifth is for validation.

  Neighbouring sections show the same cells. If the validation sections were
  drawn at random, their cells would have been seen in training.
  """
  if not (root / "train").is_dir():
    raise _layout_error("isbi_em", root)
  pairs = pairing.match(root / "train/image", root / "train/label")
  if len(pairs) < 2:
    raise UserError(
      f"{root / 'train/image'} holds one image; expected two or more, to train"
      " on some and to evaluate on the others"
    )
  held_out = max(1, round(len(pairs) / 5))
  return {"train": pairs[:-held_out], "val": pairs[-held_out:]}


def _listed_pairs(root: Path, listing: Path) -> tuple[Pair, ...]:
  """Reads a list of 'image label' lines, the format of the SegNet tutorial.

  The paths in the tutorial's lists begin with a folder of its author's
  container. If a path does not exist, its last two parts are used.
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


def _folder(
  root: Path, val_fraction: float | None
) -> dict[str, tuple[Pair, ...]]:
  """Pairs the files of images/ and masks/.

  Each folder in images/ is a split. Without such folders, or with "train"
  alone, the pairs are split automatically, or form the split `ALL` if
  `val_fraction` is None.
  """
  images, masks = root / "images", root / "masks"
  if not (images.is_dir() and masks.is_dir()):
    raise _layout_error("folder", root)
  names = [p.name for p in sorted(images.iterdir()) if _is_visible_dir(p)]
  loose = [p for p in images.iterdir() if pairing.is_image(p)]
  if names and loose:
    raise UserError(
      f"{images} holds {len(loose)} images ({loose[0].name}, ...) beside the"
      f" folders {', '.join(names)}; expected {_LAYOUTS['folder']}: move the"
      " images into one of the folders"
    )
  if not names:
    splits = {ALL: pairing.match(images, masks)}
  else:
    splits = {n: pairing.match(images / n, masks / n) for n in names}
  if names not in ([], ["train"]):
    return splits
  [pairs] = splits.values()
  if val_fraction is None:
    return {ALL: pairs}
  return _automatic_split(pairs, images.joinpath(*names), val_fraction)


def _automatic_split(
  pairs: tuple[Pair, ...], images: Path, val_fraction: float
) -> dict[str, tuple[Pair, ...]]:
  """Splits pairs into "train" and "val" by a hash of their names.

  The split depends on the names alone, not on the seed, the disk or the order
  of listing. Adding or removing a file moves at most one other file.
  """
  if not 0 < val_fraction < 1:
    raise UserError(
      f"data.val_fraction={val_fraction}: expected a share of the images"
      f" between 0 and 1 to keep for validation, because {images} has no splits"
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


def _layout_error(name: str, root: Path) -> UserError:
  """Returns an error about a folder without the layout of its data set."""
  inside = sorted(p.name for p in root.iterdir() if p.name[0] != ".")
  listed = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "")
  return UserError(
    f"data.path={str(root)!r} holds {listed or 'nothing'}; expected"
    f" {_LAYOUTS[name]}"
  )


def _is_visible_dir(path: Path) -> bool:
  return path.is_dir() and not path.name.startswith((".", "_"))


def _size_error(
  pair: Pair, size: tuple[int, int], mask: tuple[int, ...], orientation: int
) -> UserError:
  """Returns an error about a mask whose size differs from its image's.

  Args:
    pair: The two files.
    size: Height and width of the upright image.
    mask: Height and width of the mask.
    orientation: EXIF orientation of the image; 1 is upright.
  """
  hint = "give the mask the size of its image"
  if mask == size[::-1] and orientation != 1:
    hint = (
      f"the EXIF orientation {orientation} rotates the image but not the mask:"
      " rotate the mask, or remove the orientation from the image"
    )
  return UserError(
    f"{pair.mask} is {mask[0]}x{mask[1]} (height x width) but its image"
    f" {pair.image.name} is {size[0]}x{size[1]}; {hint}"
  )
