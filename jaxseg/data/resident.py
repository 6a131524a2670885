"""Loads training batches from arrays on the device, if the set fits there.

The host reads the files before training. Shuffling and gathering then run on
the device.
This loader needs neither TensorFlow nor prepared shards. Its batches are bit
for bit those of `pipeline.ShardLoader`.
"""

from collections.abc import Callable, Iterator
import functools
import itertools
import math
import os

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data import audit, examples, order
from jaxseg.data.placement import Placement
from jaxseg.data.sources import Source
from jaxseg.errors import UserError

Arrays = dict[str, jax.Array]


class ResidentLoader:
  """Keeps the examples of each split on the device; see `dataset.Loader`."""

  def __init__(
    self,
    source: Source,
    placement: Placement,
    check: Callable[[audit.Counts], object],
  ):
    """Counts and checks the ids of all masks.

    Args:
      source: The original files.
      placement: Placement of examples on the canvas.
      check: Function that raises UserError for ids that are not allowed.
    """
    self.counts = audit.count_ids(source, placement)
    check(self.counts)
    self._source, self._placement = source, placement
    self._dtype = audit.label_dtype(self.counts, placement.ignore_label)
    self._host: dict[str, dict[str, np.ndarray]] = {}
    self._device: dict[str, Arrays] = {}

  def load(self, split: str) -> None:
    """Reads a split into host memory, unless it was read before.

    Raises:
      UserError: A file cannot be read, or memory is too small.
    """
    if split in self._host or split in self._device:
      return
    count = len(self._source.splits[split])
    blank = self._placement.padding(self._dtype)
    needed = count * sum(v.nbytes for v in blank.values())
    stats = jax.local_devices()[0].memory_stats() or {}
    memory = min(host_memory(), stats.get("bytes_limit", math.inf))
    require_memory(split, needed, memory, self._placement.canvas)
    arrays = {k: np.empty((count, *v.shape), v.dtype) for k, v in blank.items()}
    generated = examples.generate(
      self._source, split, self._placement, self._dtype
    )
    for index, example in enumerate(generated):
      for name, value in example.items():
        arrays[name][index] = value
    self._host[split] = arrays

  def train_batches(
    self, split: str, *, seed: int, start_step: int, share: order.Share
  ) -> Iterator[Arrays]:
    """Yields one process's share of batches start_step, start_step + 1, ..."""
    arrays = self._on_device(split)
    n = len(arrays["image"])
    epochs = order.epochs_spanned(n, share.batch_size)
    shuffled, shuffled_epoch = None, None
    for step in itertools.count(start_step):
      epoch, position = order.locate(step, n, share)
      if epoch != shuffled_epoch:
        shuffled = order.stream(seed, epoch, n=n, epochs=epochs)
        shuffled_epoch = epoch
      yield _train_batch(arrays, shuffled, position, size=share.size)

  def _on_device(self, split: str) -> Arrays:
    """Returns the examples of a split on the device; moves them there once."""
    self.load(split)
    if split not in self._device:
      self._device[split] = jax.device_put(
        self._host.pop(split), jax.local_devices()[0]
      )
    return self._device[split]


def require_memory(
  split: str, needed: int, memory: int | float, canvas: tuple[int, int]
) -> None:
  """Checks that the examples of a split fit in memory.

  Args:
    split: Name of the split.
    needed: Bytes of its examples.
    memory: Bytes of memory.
    canvas: Height and width of the canvas of the examples.

  Raises:
    UserError: They do not fit.
  """
  if needed > 0.8 * memory:
    raise UserError(
      f"data.loader='resident': split {split!r} needs {needed / 1e9:.1f} GB on"
      f" a canvas of {canvas}, but memory has {memory / 1e9:.1f} GB; use"
      " --config.data.loader=tfdata, or a smaller canvas"
    )


def host_memory() -> int | float:
  """Returns the bytes of memory of this machine, or infinity if unknown."""
  try:
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
  except (AttributeError, ValueError, OSError):
    return math.inf


@functools.partial(jax.jit, static_argnames="size")
def _train_batch(arrays: Arrays, shuffled, position, *, size: int) -> Arrays:
  """Returns the examples at `size` positions of the shuffled indices."""
  index = jax.lax.dynamic_slice(shuffled, (position,), (size,))
  batch = {name: jnp.take(a, index, axis=0) for name, a in arrays.items()}
  return {**batch, "index": index}
