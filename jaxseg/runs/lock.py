"""A lock on a work directory: two runs must not write to it at once."""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import socket

from etils import epath

from jaxseg import files
from jaxseg.errors import UserError
from jaxseg.runs.workdir import check_folder


@contextlib.contextmanager
def locked(workdir: epath.PathLike) -> Iterator[None]:
  """Keeps other processes from training in a work directory.

  The operating system releases the lock when the process ends, however it ends.
  Commands that only read need no lock. Object stores, and some network disks,
  have none.

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
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      owner = file.read().strip() or "another process"
      raise UserError(
        f"{workdir}: {owner} trains in this work directory; wait until it "
        "ends, stop it, or choose another --workdir"
      ) from None
    except OSError:
      pass  # This disk has no locks.
    with files.disk_errors(path, "cannot be written"):
      file.truncate(0)
      file.write(f"process {os.getpid()} on {socket.gethostname()}")
      file.flush()
    yield
