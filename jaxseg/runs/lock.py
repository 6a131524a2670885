"""A lock on a work directory: two runs must not write to it at once."""

from collections.abc import Iterator
import contextlib
import os
import socket

from etils import epath

from jaxseg import files
from jaxseg.errors import UserError
from jaxseg.runs.workdir import check_folder


@contextlib.contextmanager
def locked(workdir: epath.PathLike) -> Iterator[None]:
  """Keeps other processes from training in a work directory.

  The lock is that of `files.try_lock`, so it ends with the process. Commands
  that only read need no lock, and object stores have none.

  Args:
    workdir: The work directory, which is created if it does not exist.

  Raises:
    UserError: Another process trains there, or the disk refuses the folder.
  """
  if files.is_remote(workdir):
    yield
    return
  path = files.to_path(workdir) / ".lock"
  check_folder(path.parent)
  with files.disk_errors(path, "cannot be written"):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+")
  with file:
    if not files.try_lock(file):
      file.seek(0)
      owner = file.read().strip() or "another process"
      raise UserError(
        f"{workdir}: {owner} trains in this work directory; wait until it "
        "ends, stop it, or choose another --workdir"
      )
    with files.disk_errors(path, "cannot be written"):
      file.truncate(0)
      file.write(f"process {os.getpid()} on {socket.gethostname()}")
      file.flush()
    yield
