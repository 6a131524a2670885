"""One mesh over all devices of all processes; batches are split over it.

Segmentation networks of these sizes need only data parallelism: parameters
are replicated, the batch axis is split, and `jit` inserts the collectives. The
training step is therefore the same function on one device and on a pod.
"""

from collections.abc import Iterable, Iterator, Sequence
import os
import socket
import sys
import time
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from jaxseg.errors import UserError

BATCH_AXIS = "data"

Item = TypeVar("Item")

# How long a process waits for process 0; JAX's own limit.
CONNECT_SECONDS = 300

# Parts of the two errors of `jax.distributed.initialize` for a single process:
# JAX detected no cluster, or the program has used JAX before, so that no
# launcher started it as one of several processes.
_ALONE = ("coordinator_address should be defined", "must be called before any")


def join_processes(
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
    jax.distributed.initialize(*arguments)
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


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a mesh of one axis, along which batches are split.

  Args:
    devices: Devices in the order of the axis. By default all devices of all
      processes, process by process. Data parallelism needs no other order,
      so one rule serves single hosts, pods and multislice topologies, which
      `jax.make_mesh` refuses.
  """
  if devices is None:
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
  return Mesh(np.asarray(devices), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of parameters and of all values without a batch."""
  return NamedSharding(mesh, PartitionSpec())


def batch_split(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of batches: the first axis over all devices."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def global_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
  """Joins the parts of a batch that each process holds into global arrays."""
  sharding = batch_split(mesh)
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return {
    key: jax.make_array_from_process_local_data(sharding, np.asarray(value))
    for key, value in batch.items()
  }


def mesh_for_training(batch_size: int, parts: int = 1) -> Mesh:
  """Returns a mesh over which training batches divide evenly.

  A single process uses as many of its devices as divide the batch, and prints a
  note if these are not all. Several processes use all devices.

  Args:
    batch_size: Size of the global batch, `train.batch_size`.
    parts: Number of parts that a batch is computed in, `optimizer.accumulate`.

  Raises:
    UserError: The batch does not divide into its parts, or these do not divide
      over the devices of all processes. The message names values that do.
  """
  if batch_size % parts:
    raise UserError(
      f"train.batch_size={batch_size} does not divide into the parts of "
      f"optimizer.accumulate={parts}; expected a divisor, such as "
      f"--config.optimizer.accumulate={largest_divisor(batch_size, parts)}"
    )
  mesh = make_mesh()
  part = batch_size // parts
  if part % mesh.size == 0:
    return mesh
  text = f"{batch_size} in {parts} parts" if parts > 1 else f"{batch_size}"
  sizes = _whole_batches(batch_size, parts, mesh.size)
  if jax.process_count() > 1:
    raise UserError(
      f"train.batch_size={text} does not divide over the {mesh.size} "
      f"devices of {jax.process_count()} processes; expected a multiple of "
      f"{mesh.size} examples for each part: {sizes}"
    )
  used = largest_divisor(part, mesh.size)
  print(
    f"note: a batch of {text} is trained on {used} of {mesh.size} "
    f"devices; {sizes} uses all",
    file=sys.stderr,
  )
  return make_mesh(list(mesh.devices.flat)[:used])


def _whole_batches(batch_size: int, parts: int, devices: int) -> str:
  """Returns flags with which the parts of a batch divide over the devices."""
  if batch_size % devices == 0:
    # Fewer parts give the same update.
    most = largest_divisor(batch_size // devices, parts)
    return f"--config.optimizer.accumulate={most}"
  unit = parts * devices
  below = batch_size // unit * unit
  nearest = [size for size in (below, below + unit) if size > 0]
  return " or ".join(f"--config.train.batch_size={size}" for size in nearest)


def largest_divisor(batch_size: int, limit: int) -> int:
  """Returns the largest number up to `limit` that divides the batch size."""
  return max(n for n in range(1, limit + 1) if batch_size % n == 0)


def round_up(batch_size: int, devices: int) -> int:
  """Returns the smallest multiple of `devices` that is not smaller."""
  return -(-batch_size // devices) * devices


def device_batches(
  batches: Iterable[dict[str, Any]], mesh: Mesh
) -> Iterator[dict[str, jax.Array]]:
  """Yields global batches and transfers one batch ahead."""
  return one_ahead(global_batch(batch, mesh) for batch in batches)


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
  """Yields each item after the next one was requested.

  JAX computes asynchronously: whoever reads an item then waits while the
  devices already work on the next one.
  """
  items = iter(items)
  for item in items:
    for following in items:
      yield item
      item = following
    yield item
