"""One mesh over all devices of all processes; batches are split over it.

Segmentation networks of these sizes need only data parallelism: parameters
are replicated, the batch axis is split, and `jit` inserts the collectives. The
training step is therefore the same function on one device and on a pod.
"""

from collections.abc import Iterable, Iterator, Sequence
import sys
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from jaxseg.errors import UserError

BATCH_AXIS = "data"

Item = TypeVar("Item")


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


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Copies the arrays of a tree, which each process holds, to all devices."""
  sharding = replicated(mesh)
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)

  def copy(array):
    values = np.asarray(array)
    return jax.make_array_from_callback(
      values.shape, sharding, values.__getitem__
    )

  return jax.tree.map(copy, tree)


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
