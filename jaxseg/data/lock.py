"""A lock that lets one process prepare a data set while the others wait."""

from collections.abc import Iterator
import contextlib
import fcntl
from pathlib import Path

from jaxseg import files
from jaxseg.data.notes import note


@contextlib.contextmanager
def locked(path: Path, title: str) -> Iterator[None]:
  """Runs the block in one process at a time.

  The lock is that of `files.try_lock`, so it ends with its process.

  Args:
    path: File of the lock. It is created, and deleted after the block.
    title: What the block does, for a note to those who wait.
  """
  with open(path, "a") as file:
    if not files.try_lock(file):
      note(f"waiting for another process that is {title}")
      fcntl.flock(file, fcntl.LOCK_EX)
    try:
      yield
    finally:
      path.unlink(missing_ok=True)
