"""Connects the processes of a run, if a launcher started several.

`with joined(...)` is the frame of a command that runs in several processes: it
connects them, lets only the first one print messages, and ends all of them
when one fails; see `jaxseg.peers`.
"""

from collections.abc import Iterator
import contextlib
import os
import socket
import sys
import threading
import time
import warnings

import jax
from jax._src import distributed
from jax.experimental import multihost_utils

from jaxseg.errors import UserError
from jaxseg.peers import Peers

# How long JAX waits for the heartbeat of a process and, at the end, for the
# other processes.
HEARTBEAT_SECONDS = 60
SHUTDOWN_SECONDS = 30

# How long processes wait for one another at the start.
CONNECT_SECONDS = 300

# Parts of the two errors of `jax.distributed.initialize` for a single process:
# JAX detected no cluster, or the program has used JAX before, so that no
# launcher started it as one of several processes.
_ALONE = ("coordinator_address should be defined", "must be called before any")


def join(
  coordinator: str = "", num_processes: int = 0, process_id: int = -1
) -> None:
  """Connects this process to the others of its launch, if there are any.

  Must be called before anything uses a device. Without arguments JAX detects
  the cluster: SLURM, Open MPI, Cloud TPU or Kubernetes. Outside of a cluster
  the call returns at once.

  Args:
    coordinator: "host:port" of process 0; "" detects the cluster.
    num_processes: Number of processes; only with `coordinator`.
    process_id: Index of this process; only with `coordinator`.

  Raises:
    UserError: The arguments contradict each other, or the processes cannot
      connect.
  """
  if jax.distributed.is_initialized():
    return
  if coordinator or num_processes or process_id != -1:
    host, port = _check_arguments(coordinator, num_processes, process_id)
    if process_id > 0:
      _wait_for_coordinator(host, port)
    arguments = (coordinator, num_processes, process_id)
  elif _is_single_task():
    return
  else:
    arguments = ()
  try:
    with _warnings_as_notes(), _time_limit():
      jax.distributed.initialize(
        *arguments,
        # JAX aborts the program at its own limit.
        initialization_timeout=CONNECT_SECONDS + 60,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
      )
  except Exception as error:
    text = str(error)
    if not arguments and any(part in text for part in _ALONE):
      return
    raise UserError(
      f"cannot connect the processes: {' '.join(text.split())[:300]}; set "
      "--coordinator=HOST:PORT, --num-processes and --process-id (for a single "
      "process localhost:12345, 1 and 0)"
    ) from error


def _is_single_task() -> bool:
  """Returns whether the launcher says that it started a single process.

  `jax.distributed.initialize` would restrict such a process to one GPU of its
  machine. In an interactive SLURM shell it would also wait for all tasks of the
  allocation (SLURM_NTASKS), although the shell is a step of a single task.
  """
  slurm_tasks = os.environ.get("SLURM_STEP_NUM_TASKS")
  return os.environ.get("OMPI_COMM_WORLD_SIZE", slurm_tasks) == "1"


def _check_arguments(
  coordinator: str, num_processes: int, process_id: int
) -> tuple[str, int]:
  """Returns host and port of the coordinator.

  Raises:
    UserError: An argument is missing, malformed or out of range.
  """
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise UserError(
      f"--coordinator={coordinator}: expected HOST:PORT of process 0, for "
      "example 10.0.0.1:12345"
    )
  if num_processes < 1:
    raise UserError(
      f"--num-processes={num_processes}: expected the number of processes, at "
      "least 1; --coordinator needs it"
    )
  if not 0 <= process_id < num_processes:
    raise UserError(
      f"--process-id={process_id}: expected 0 to {num_processes - 1}, because "
      f"--num-processes={num_processes}"
    )
  return host.strip("[]"), int(port)


def _wait_for_coordinator(host: str, port: int) -> None:
  """Waits until process 0 listens; JAX would abort without an exception.

  Raises:
    UserError: The host is unknown, or nobody listens within CONNECT_SECONDS.
  """
  deadline = time.monotonic() + CONNECT_SECONDS
  while True:
    try:
      socket.create_connection((host, port), timeout=5).close()
      return
    except socket.gaierror as error:
      raise UserError(
        f"--coordinator={host}:{port}: unknown host ({error.strerror})"
      ) from error
    except OSError as error:
      if time.monotonic() >= deadline:
        raise UserError(
          f"--coordinator={host}:{port}: no answer within {CONNECT_SECONDS} s "
          f"({error.strerror or error}); start process 0 on this host"
        ) from error
      time.sleep(1)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
  """Ends the program if the block takes longer than CONNECT_SECONDS."""

  def give_up():
    print(
      f"error: not all processes have connected within "
      f"{CONNECT_SECONDS} s; start all of them with the same --num-processes, "
      "each with its own --process-id",
      file=sys.stderr,
      flush=True,
    )
    os._exit(2)

  timer = threading.Timer(CONNECT_SECONDS, give_up)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


@contextlib.contextmanager
def _warnings_as_notes() -> Iterator[None]:
  """Prints each Python warning of the block in one line.

  JAX warns in a Kubernetes pod without the package `kubernetes`.
  """
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    try:
      yield
    finally:
      for warning in caught:
        text = " ".join(str(warning.message).split())
        print(f"note: {text}", file=sys.stderr)


@contextlib.contextmanager
def joined(
  coordinator: str = "", num_processes: int = 0, process_id: int = -1
) -> Iterator[None]:
  """Connects this process to the others of its launch, if there are any.

  If the block raises an exception in one of several processes, all of them
  print the reason and exit. Only the first process prints anything else.

  Args:
    coordinator: See `join`.
    num_processes: See `join`.
    process_id: See `join`.

  Raises:
    UserError: The arguments contradict each other, or the processes cannot
      connect.
  """
  join(coordinator, num_processes, process_id)
  state = distributed.global_state
  if state.num_processes == 1:
    yield
    return
  peers = Peers(state.client, state.process_id, state.num_processes)
  with contextlib.ExitStack() as stack:
    if state.process_id > 0:
      print(
        f"process {state.process_id} of {state.num_processes}; process 0 prints"
        " the messages",
        file=sys.stderr,
      )
      nowhere = stack.enter_context(open(os.devnull, "w"))
      stack.enter_context(contextlib.redirect_stdout(nowhere))
      stack.enter_context(contextlib.redirect_stderr(nowhere))
    try:
      _check_count(state.client, state.process_id, state.num_processes)
      # Connects the devices while no process is ahead of the others: on CPUs
      # the first collective operation waits for at most 30 s.
      with _quiet_stdout():
        multihost_utils.sync_global_devices("jaxseg")
      yield
    except SystemExit:  # All processes stop after the same step.
      peers.finish()
      raise
    except BaseException as error:
      peers.fail(error)
    peers.finish()


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
  """Discards what C++ code prints: Gloo reports its connections there."""
  sys.stdout.flush()
  saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 1)
  try:
    yield
  finally:
    os.dup2(saved, 1)
    os.close(saved)
    os.close(nowhere)


def _check_count(store, index: int, count: int) -> None:
  """Checks that all processes were told the same number of processes.

  Raises:
    UserError: Process 0 was told another number.
  """
  if index == 0:
    store.key_value_set("jaxseg/count", str(count))
  expected = store.blocking_key_value_get(
    "jaxseg/count", CONNECT_SECONDS * 1000
  )
  if expected != str(count):
    raise UserError(
      f"--num-processes={count}, but process 0 has --num-processes={expected}; "
      "all processes need the same number"
    )
