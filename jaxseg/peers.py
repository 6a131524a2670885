"""Several processes of one run fail together, with one reason.

JAX computes in all processes at once, so a process whose peer has failed waits
in its next collective operation. Here a process that fails publishes the reason
in the key-value store of JAX's coordinator. A thread of every other process
reads it there, prints it and ends the process. Process 0 hosts the store, so it
is the last to exit.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
import traceback
from typing import NoReturn

import jax

from jaxseg.errors import UserError

# Time between two looks at the store.
POLL_SECONDS = 0.5

# After this time a process that does not report counts as dead: the first
# limit holds while all is well, the second after an exception that may be the
# consequence of its death.
SILENT_SECONDS = 30
SUSPECT_SECONDS = 10

# How long process 0 waits until the others have read why the run ends.
READ_SECONDS = 5

# Keys of the store. All of them are followed by the index of a process, except
# that there is one failure.
_FAILURE, _BEAT, _READ = "jaxseg/failure/", "jaxseg/beat/", "jaxseg/read/"


@dataclasses.dataclass(frozen=True)
class Failure:
  """Why a run ends.

  Attributes:
    process: Index of the process that failed.
    host: Name of its machine.
    status: Exit status of all processes.
    reason: One line.
  """

  process: int
  host: str
  status: int
  reason: str

  def __str__(self) -> str:
    return f"error: process {self.process} ({self.host}): {self.reason}"


class Peers:
  """Reports that this process is alive, and ends it when another one fails."""

  def __init__(self, store, index: int, count: int):
    """Starts to watch the other processes.

    Args:
      store: Client of JAX's coordinator.
      index: Index of this process.
      count: Number of processes.
    """
    self._store, self._index, self._count = store, index, count
    self._host = socket.gethostname()
    self._stderr = sys.stderr
    self._finished = threading.Event()
    self._ending = threading.Lock()
    # Process 0 looks for silent processes.
    tasks = [self._report, self._look_for_silence][: 2 if index == 0 else 1]
    self._threads = [
      threading.Thread(target=self._until_finished, args=(task,), daemon=True)
      for task in tasks
    ]
    for thread in self._threads:
      thread.start()

  def fail(self, error: BaseException) -> NoReturn:
    """Ends all processes because of an exception in this one."""
    failure = self._describe(error)
    is_expected = isinstance(error, (UserError, KeyboardInterrupt))
    if not is_expected:
      failure = self._silent_peer(SUSPECT_SECONDS) or failure
    cause = self._publish(failure)
    if cause.process == self._index and not is_expected:
      traceback.print_exception(error, file=self._stderr)
    self._end(cause)

  def finish(self) -> None:
    """Waits until all processes have succeeded."""
    day = 24 * 60 * 60 * 1000
    self._store.wait_at_barrier("jaxseg/finish", day)
    self._finished.set()
    for thread in self._threads:
      thread.join()

  def _describe(self, error: BaseException) -> Failure:
    """Returns the failure of this process that an exception is."""
    if isinstance(error, UserError):
      status, reason = 2, str(error)
    elif isinstance(error, KeyboardInterrupt):
      status, reason = 130, "interrupted"
    else:
      status = 1
      text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
      reason = f"{text}; the traceback is in the output of this process"
    return Failure(self._index, self._host, status, reason)

  def _until_finished(self, task: Callable[[], None]) -> None:
    """Repeats a task, in a thread, until the run is finished."""
    try:
      while not self._finished.wait(POLL_SECONDS):
        task()
    except jax.errors.JaxRuntimeError:
      # The store does not answer. JAX will end this process, too.
      reason = "it does not answer; its own output tells more"
      self._end(Failure(0, "the coordinator", 1, reason))

  def _report(self) -> None:
    """Reports this process, and ends it if a failure was published."""
    self._store.key_value_set(
      f"{_BEAT}{self._index}",
      f"{self._host} {time.monotonic()}",
      allow_overwrite=True,
    )
    failure = self._published()
    if failure:
      self._end(failure)

  def _look_for_silence(self) -> None:
    """Ends all processes if one of them does not report any more."""
    failure = self._silent_peer(SILENT_SECONDS)
    if failure and not self._finished.is_set():
      self._end(self._publish(failure))

  def _silent_peer(self, seconds: float) -> Failure | None:
    """Waits until all other processes have reported.

    Args:
      seconds: Time to wait. It is counted in looks at the store, so a machine
        that was suspended accuses nobody.

    Returns:
      The failure of a process that did not report, or None.
    """
    silent = set(range(self._count)) - {self._index}
    before = self._values(_BEAT)
    for _ in range(int(seconds / POLL_SECONDS)):
      if self._finished.wait(POLL_SECONDS):
        return None
      now = self._values(_BEAT)
      silent = {i for i in silent if now.get(i) == before.get(i)}
      if not silent:
        return None
    process = min(silent)
    host = before.get(process, "unknown host").rpartition(" ")[0]
    reason = (
      f"it has not reported for {seconds} s; it was killed, or its machine "
      "does not answer; its own output may tell more"
    )
    return Failure(process, host, 1, reason)

  def _values(self, prefix: str) -> dict[int, str]:
    """Returns the values of the processes under a key."""
    found = self._store.key_value_dir_get(prefix)
    return {int(key.removeprefix(prefix)): value for key, value in found}

  def _published(self) -> Failure | None:
    """Returns the failure that was published, if any."""
    values = self._values(_FAILURE)
    return Failure(**json.loads(values[0])) if values else None

  def _publish(self, failure: Failure) -> Failure:
    """Publishes a failure, and returns the one that was published first."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._store.key_value_set(
        f"{_FAILURE}0", json.dumps(dataclasses.asdict(failure))
      )
    return self._published() or failure

  def _end(self, failure: Failure) -> NoReturn:
    """Prints why the run ends, and exits; process 0 exits last."""
    self._ending.acquire()  # Never released: only one thread prints.
    print(failure, file=self._stderr, flush=True)
    with contextlib.suppress(Exception):
      sys.stdout.flush()
      self._store.key_value_set(f"{_READ}{self._index}", "")
      deadline = time.monotonic() + READ_SECONDS
      while self._index == 0 and time.monotonic() < deadline:
        if len(self._values(_READ)) == self._count:
          break
        time.sleep(0.1)
    # A normal exit would wait for the other processes.
    os._exit(failure.status)
