"""Describes the files of a data set, to notice that they changed.

A run must continue on the files that it started with. The description does not
depend on where the folder is or when its files were written. It is cheap: it
covers the name and the size of every file, and the first bytes of some of them.
"""

from collections.abc import Iterable
import hashlib
from pathlib import Path

from jaxseg import files
from jaxseg.data.sources import Files, Source

# Files of a split whose first bytes are read, and how many bytes of each.
_SAMPLES = 64
_SAMPLE_BYTES = 2**16

_ADVICE = "check that the files are there and that you may read them"

# What differs, by key of the description of a split. The first difference
# explains those after it.
_DIFFERENCES = {
  "examples": "the number of examples",
  "names": "the names of the files",
  "sizes": "the sizes of the files",
  "samples": "the bytes of the files",
}

# Split -> key of `_DIFFERENCES` -> its value.
Contents = dict[str, dict[str, int | str]]


def describe(source: Source) -> Contents:
  """Returns a description of each split, a JSON value."""
  return {split: _describe(source, split) for split in source.splits}


def _describe(source: Source, split: str) -> dict[str, int | str]:
  description: dict[str, int | str] = {"examples": len(source.splits[split])}
  if not isinstance(source, Files):
    return description
  pairs = source.splits[split]
  paths = sorted({path for p in pairs for path in (p.image, p.mask)})
  names = [path.relative_to(source.root).as_posix() for path in paths]
  with files.disk_errors(source.root, "cannot be read", advice=_ADVICE):
    sizes = [str(path.stat().st_size) for path in paths]
    samples = [_first_bytes(p) for p in paths[:: -(-len(paths) // _SAMPLES)]]
  return {
    **description,
    "names": _digest(name.encode() for name in names),
    "sizes": _digest(size.encode() for size in sizes),
    "samples": _digest(samples),
  }


def _first_bytes(path: Path) -> bytes:
  with path.open("rb") as file:
    return file.read(_SAMPLE_BYTES)


def _digest(parts: Iterable[bytes]) -> str:
  digests = (hashlib.sha256(part).digest() for part in parts)
  return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


def difference(old: Contents, new: Contents, split: str) -> str | None:
  """Describes the first difference of a split, None if there is none.

  A split that one of the descriptions lacks is not compared.
  """
  if split not in old or split not in new:
    return None
  for key, what in _DIFFERENCES.items():
    before, now = old[split].get(key), new[split].get(key)
    if before != now:
      values = f" ({before} before, {now} now)" if key == "examples" else ""
      return f"{what} of the split {split!r} changed{values}"
  return None
