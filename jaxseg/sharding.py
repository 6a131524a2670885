"""One mesh over all devices of all processes; batches are split over it.

Data parallelism is all a segmentation network of these sizes needs: the
parameters are replicated, the batch axis is split, and `jit` inserts the
collectives. Nothing else in jaxseg changes between one device and a pod.
"""

from collections.abc import Iterable
import os
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from jaxseg.errors import UserError

BATCH_AXIS = "data"


def start_processes(
  coordinator: str = "", num_processes: int = 0, process_id: int = -1
) -> None:
  """Joins this process to the others, if there are others.

  Call it before anything touches a device. With a `coordinator`
  ("host:port") the three arguments say it all; without one, a SLURM or
  Open MPI launch of several tasks and a TPU pod are recognised by their own
  environment variables, and anything else is a single process.

  Raises:
    UserError: a coordinator without the process count and id.
  """
  if coordinator:
    if num_processes < 1 or process_id < 0:
      raise UserError(
        "--coordinator needs --num-processes and --process-id as well"
      )
    jax.distributed.initialize(coordinator, num_processes, process_id)
  elif _cluster_size() > 1:
    jax.distributed.initialize()


def _cluster_size() -> int:
  """How many processes the cluster's environment announces."""
  for variable in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
    if os.environ.get(variable, "").isdigit():
      # An interactive SLURM shell announces tasks but has no step.
      if variable == "SLURM_NTASKS" and "SLURM_STEP_ID" not in os.environ:
        continue
      return int(os.environ[variable])
  return len(os.environ.get("TPU_WORKER_HOSTNAMES", "").split(","))


def make_mesh(devices=None) -> Mesh:
  """A one-axis mesh over `devices` (default: all, of all processes)."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh(
    (len(devices),), (BATCH_AXIS,), axis_types=(AxisType.Auto,), devices=devices
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of parameters and of everything without a batch axis."""
  return NamedSharding(mesh, PartitionSpec())


def batch_split(mesh: Mesh) -> NamedSharding:
  """The sharding of batches: the first axis over all devices."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def global_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
  """Makes one global array of each process's slice of a batch."""
  sharding = batch_split(mesh)
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return {
    key: jax.make_array_from_process_local_data(sharding, np.asarray(value))
    for key, value in batch.items()
  }


def check_batch_size(batch_size: int, mesh: Mesh, field: str) -> None:
  """Refuses a batch that does not divide over the devices.

  Raises:
    UserError: names `field` and the nearest sizes that work.
  """
  devices = mesh.size
  if batch_size > 0 and batch_size % devices == 0:
    return
  below = batch_size // devices * devices
  nearest = [size for size in (below, below + devices) if size > 0]
  raise UserError(
    f"{field}={batch_size} does not divide over {devices} devices "
    f"({jax.process_count()} processes); nearest that do: "
    + " and ".join(map(str, nearest))
  )


def device_batches(batches: Iterable[dict[str, Any]], mesh: Mesh):
  """Global batches, the next one already on its way to the devices."""
  ready = None
  for batch in batches:
    following = global_batch(batch, mesh)
    if ready is not None:
      yield ready
    ready = following
  if ready is not None:
    yield ready
