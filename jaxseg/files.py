"""Atomic file writes, and one error for a disk that refuses them.

Paths are local or on an object store (`gs://bucket/folder`); `etils.epath`
reads and writes both. An object store can neither append to a file nor rename
one, but it publishes an object only when its upload is complete.
"""

from collections.abc import Iterator
import contextlib
import errno
import io
import os
import shutil
from typing import IO, BinaryIO
import zlib

from etils import epath

from jaxseg.errors import UserError

ADVICE = "free some space, or choose a folder that you may write to"

# Libraries raise other errors when the disk refuses a file. Only the text of
# the original error remains in them.
_REFUSALS = (
  "No space left",
  "RESOURCE_EXHAUSTED",
  "Permission denied",
  "Disk quota",
  "Read-only file system",
  "File too large",
)
# Some libraries drop the text as well. Any error on a disk with less free space
# than this is reported as a full disk.
_FULL_BYTES = 2**24
_CHUNK = 2**24  # Bytes that a checksum reads at a time.


def to_path(path: epath.PathLike) -> epath.Path:
  """Returns a path whose methods work locally and on object stores.

  Raises:
    UserError: `path` is a URL of an unknown scheme.
  """
  try:
    return epath.Path(path).expanduser()
  except KeyError as error:
    raise UserError(
      f"{path}: unknown kind of path {error.args[0]!r}; expected a local path "
      "or gs://BUCKET/FOLDER"
    ) from None


def is_remote(path: epath.PathLike) -> bool:
  """Returns whether `path` is on an object store."""
  return "://" in os.fspath(path)


@contextlib.contextmanager
def atomic_write(path: epath.PathLike) -> Iterator[BinaryIO]:
  """Opens a binary file that appears at `path` when it is complete.

  Missing folders are created. If the block or the disk fails, a file that was
  at `path` before stays as it was and nothing else remains.

  Raises:
    UserError: The disk is full or refuses the file.
  """
  path = to_path(path)
  if is_remote(path):
    # An exception in an open upload would publish its first part.
    buffer = io.BytesIO()
    yield buffer
    with disk_errors(path, "cannot be written"):
      path.write_bytes(buffer.getvalue())
    return
  with disk_errors(path, "cannot be written"):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
      with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a UTF-8 text file with `atomic_write`.

  Raises:
    UserError: The disk is full or refuses the file.
  """
  with atomic_write(path) as file:
    file.write(text.encode())


def checksum(path: epath.PathLike) -> int:
  """Returns the CRC-32 of a file."""
  result = 0
  with to_path(path).open("rb") as file:
    while chunk := file.read(_CHUNK):
      result = zlib.crc32(chunk, result)
  return result


def try_lock(file: IO) -> bool:
  """Locks an open local file, unless another process has locked it.

  The operating system releases the lock when the file is closed or its process
  ends, however it ends. Some network disks have no locks; there, nobody waits.

  Returns:
    False if another process has locked the file.
  """
  import fcntl  # Windows lacks it, and only writing needs it.

  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:
    pass
  return True


@contextlib.contextmanager
def disk_errors(
  path: epath.PathLike, failure: str, *, advice: str = ADVICE
) -> Iterator[None]:
  """Raises a UserError if the disk refuses to read or write in the block.

  Errors that have nothing to do with the disk pass through unchanged.

  Args:
    path: The file or folder that the block reads or writes.
    failure: What could not be done, for example "cannot be written".
    advice: How the user can fix it.

  Raises:
    UserError: "PATH: FAILURE (reason, free space); ADVICE".
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    reason = _reason(path, error)
    if reason is None:
      raise
    raise UserError(f"{path}: {failure} ({reason}); {advice}") from error


def check_space(
  path: epath.PathLike, needed: int, failure: str, *, advice: str = ADVICE
) -> None:
  """Checks that `needed` bytes fit on the disk of a local `path`.

  Args:
    path: The file or folder to write.
    needed: Size in bytes.
    failure: As in `disk_errors`.
    advice: As in `disk_errors`.

  Raises:
    UserError: Less space is free.
  """
  free = free_bytes(path)
  if free is not None and free < needed:
    raise UserError(
      f"{path}: {failure} (No space left on device: {needed / 2**20:.1f} MB "
      f"needed, {free / 2**20:.1f} MB free); {advice}"
    )


def free_bytes(path: epath.PathLike) -> int | None:
  """Returns the free space at a local path, None on an object store."""
  if is_remote(path):
    return None
  path = os.path.abspath(path)
  while not os.path.exists(path):
    path = os.path.dirname(path)
  return shutil.disk_usage(path).free


def _reason(path: epath.PathLike, error: Exception) -> str | None:
  """Returns why the disk failed, or None if the error has another cause."""
  text = str(error).strip()
  line = text.splitlines()[0][:200] if text else type(error).__name__
  free = free_bytes(path)
  if isinstance(error, OSError):
    reason = error.strerror or line
  elif free is None or any(refusal in text for refusal in _REFUSALS):
    reason = line
  elif free < _FULL_BYTES:
    reason = os.strerror(errno.ENOSPC)
  else:
    return None
  return reason if free is None else f"{reason}; {free >> 20} MB free"
