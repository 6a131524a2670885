"""Pairs images with their masks: files of the same name in two folders."""

import dataclasses
import functools
from pathlib import Path

from PIL import Image

from jaxseg.errors import UserError


@dataclasses.dataclass(frozen=True)
class Pair:
  """An image file and its mask file.

  Attributes:
    image: Path of the image.
    mask: Path of the mask.
  """

  image: Path
  mask: Path


def match(images: Path, masks: Path) -> tuple[Pair, ...]:
  """Pairs images and masks of the same name up to the suffix.

  Args:
    images: Folder of images, searched recursively.
    masks: Folder of masks, searched recursively.

  Returns:
    All pairs, sorted by name.

  Raises:
    UserError: A folder is missing or empty, two files have the same name, or
      a file has no partner.
  """
  for folder in (images, masks):
    if not folder.is_dir():
      raise UserError(
        f"{folder} does not exist; expected the"
        f" {'masks' if folder == masks else 'images'} that belong to"
        f" {images if folder == masks else masks}{_siblings(folder)}"
      )
  found_images, found_masks = _by_name(images), _by_name(masks)
  if found_images.keys() != found_masks.keys():
    raise _unmatched_error(images, masks, found_images, found_masks)
  return tuple(
    Pair(found_images[name], found_masks[name]) for name in sorted(found_images)
  )


def _siblings(folder: Path) -> str:
  """Lists the folders next to a missing folder."""
  if not folder.parent.is_dir():
    return ""
  names = sorted(p.name for p in folder.parent.iterdir() if p.is_dir())
  return f" ({folder.parent} holds {', '.join(names[:8]) or 'no folder'})"


def _by_name(folder: Path) -> dict[str, Path]:
  """Finds the image files in a folder, by relative path without suffix."""
  every = [p for p in sorted(folder.rglob("*")) if _is_visible(p, folder)]
  files = [p for p in every if is_image(p)]
  if not files:
    others = sorted({p.suffix or p.name for p in every})[:5]
    seen = f"only {', '.join(others)}" if others else "nothing"
    raise UserError(f"{folder} holds {seen}; expected image files")
  result: dict[str, Path] = {}
  for path in files:
    if not path.exists():
      raise UserError(
        f"{path} is a link to {path.readlink()}, which does not exist; restore"
        " that file, or remove the link and its partner"
      )
    name = path.relative_to(folder).with_suffix("").as_posix()
    if name in result:
      raise UserError(
        f"{folder}: {result[name].name} and {path.name} have the same name up"
        " to the suffix; keep one of them"
      )
    result[name] = path
  return result


def _unmatched_error(
  images: Path, masks: Path, found_images: dict, found_masks: dict
) -> UserError:
  """Returns an error that counts and lists the files without a partner."""
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
    "an image and its mask have the same name up to the suffix; add the"
    " missing files or remove these"
  )
  return UserError(f"{'; '.join(parts)}; {hint}")


def _suffix_hint(lone_images: list[str], lone_masks: list[str]) -> str:
  """Returns a hint if all lone names of one side have an ending in common.

  An example are the names a.jpg and a_mask.png.
  """
  for short, long, side in (
    (lone_images, lone_masks, "mask"),
    (lone_masks, lone_images, "image"),
  ):
    stems = set(short)
    endings = {
      name[len(stem) :]
      for name in long[:1]
      for stem in stems
      if name.startswith(stem)
    }
    common = [
      ending for ending in endings if {n + ending for n in stems} == set(long)
    ]
    if common:
      return f"the {side} names end in {common[0]!r}; rename them without it"
  return ""


@functools.cache
def _suffixes() -> frozenset[str]:
  """Returns the suffixes of files that Pillow can read."""
  return frozenset(
    suffix
    for suffix, kind in Image.registered_extensions().items()
    if kind in Image.OPEN
  )


def is_image(path: Path) -> bool:
  """Returns whether the name is that of an image file."""
  return path.suffix.lower() in _suffixes() and not path.name.startswith(".")


def _is_visible(path: Path, folder: Path) -> bool:
  """Returns whether a file is neither hidden nor in a hidden folder.

  Editors keep copies in hidden folders.
  """
  return not any(p.startswith(".") for p in path.relative_to(folder).parts)
