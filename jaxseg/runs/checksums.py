"""Checksums of the files of a checkpoint, which reveal damaged ones.

A disk or a copy that loses the end of a file, or changes a byte of it, gives
other parameters and often no error. `checksums.json` in a folder holds the size
and the CRC-32 of every file there.
"""

from collections.abc import Iterator
import json

from etils import epath

from jaxseg import files

NAME = "checksums.json"


def write(folder: epath.Path) -> None:
  """Writes `checksums.json` for all files in and below a folder."""
  found = {
    path.relative_to(folder).as_posix(): _state(path)
    for path in _files(folder)
    if path.name != NAME
  }
  (folder / NAME).write_text(json.dumps(found))


def find_damage(folder: epath.Path) -> str | None:
  """Returns the first file that changed and how, or None if there is none.

  A folder without `checksums.json` was written by an earlier version of jaxseg
  and cannot be checked.
  """
  try:
    expected = json.loads((folder / NAME).read_bytes())
    states = {name: [size, crc] for name, (size, crc) in expected.items()}
  except FileNotFoundError:
    return None
  except (AttributeError, TypeError, ValueError):
    return f"{NAME}: not a table of checksums in JSON"
  for name, state in states.items():
    path = folder / name
    if not path.exists() or path.is_dir():
      return f"{name}: missing"
    found = path.stat().length
    if found < state[0]:
      return f"{name}: truncated, {found} of {state[0]} bytes"
    if _state(path) != state:
      return f"{name}: changed since it was written"
  return None


def _files(folder: epath.Path) -> Iterator[epath.Path]:
  """Yields the files in and below a folder."""
  for path in sorted(folder.iterdir()):
    if path.is_dir():
      yield from _files(path)
    else:
      yield path


def _state(path: epath.Path) -> list[int]:
  """Returns the size and the CRC-32 of a file."""
  return [path.stat().length, files.checksum(path)]
