"""A list of the files of a folder, by which damage to them is found."""

import json
from pathlib import Path

from jaxseg import files

_NAME = "manifest.json"
# Checksums of larger files take too long to be compared at every start.
_QUICK_BYTES = 2**26


def write(folder: Path) -> None:
  """Writes size and checksum of each file in a folder."""
  found = {
    path.relative_to(folder).as_posix(): [
      path.stat().st_size,
      files.checksum(path),
    ]
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }
  (folder / _NAME).write_text(json.dumps(found))


def damage(folder: Path, *, thorough: bool = False) -> str:
  """Returns which file differs from the manifest and how, or "" for none.

  Args:
    folder: Folder with a manifest.
    thorough: Whether to compare the checksums of large files too.
  """
  try:
    listed = json.loads((folder / _NAME).read_text())
    for name, (size, checksum) in listed.items():
      path = folder / name
      seen = path.stat().st_size if path.is_file() else None
      if seen is None:
        return f"{name} is missing"
      if seen != size:
        return f"{name} has {seen} bytes instead of {size}"
      if (thorough or size <= _QUICK_BYTES) and files.checksum(
        path
      ) != checksum:
        return f"{name} has changed"
  except (OSError, ValueError, TypeError, AttributeError) as error:
    # A damaged manifest is no JSON, or JSON of another structure.
    return f"{_NAME}: {' '.join(str(error).split())}"
  return ""
