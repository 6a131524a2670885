"""Batches from the device itself: the whole set lives there as arrays.

For sets that fit: the host reads the files once, then only names positions;
shuffling and gathering are done on the device. Nothing here needs TensorFlow
or prepared shards. Batches are, bit for bit, those of the other loader.
"""

from collections.abc import Callable, Iterator
import functools
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


class Store:
  """The examples of a source, read when first asked for."""

  def __init__(
    self,
    source: Source,
    placement: Placement,
    check: Callable[[audit.Counts], object],
  ):
    self.counts = audit.count_ids(source, placement)
    check(self.counts)
    self._source, self._placement = source, placement
    self._dtype = audit.label_dtype(self.counts, placement.ignore_label)
    self._host: dict[str, dict[str, np.ndarray]] = {}
    self._device: dict[str, Arrays] = {}

  def load(self, split: str) -> None:
    """Reads a split into memory, where every bad file is found."""
    if split in self._host or split in self._device:
      return
    count = len(self._source.splits[split])
    blank = self._placement.padding(self._dtype)
    self._require_memory(split, count * sum(v.nbytes for v in blank.values()))
    arrays = {k: np.empty((count, *v.shape), v.dtype) for k, v in blank.items()}
    made = examples.generate(self._source, split, self._placement, self._dtype)
    for index, example in enumerate(made):
      for name, value in example.items():
        arrays[name][index] = value
    self._host[split] = arrays

  def train_batches(
    self, split: str, *, seed: int, start_step: int, share: order.Share
  ) -> Iterator[Arrays]:
    """This process's part of batches start_step, start_step + 1, ..."""
    arrays = self._on_device(split)
    n = len(arrays["image"])
    epochs = order.epochs_spanned(n, share.batch_size)
    shuffled, current = None, None
    step = start_step
    while True:
      epoch, start = order.locate(step, n, share)
      if epoch != current:
        shuffled = order.stream(seed, epoch, n=n, epochs=epochs)
        current = epoch
      yield _train_batch(arrays, shuffled, start, size=share.size)
      step += 1

  def eval_batches(self, split: str, *, share: order.Share) -> Iterator[Arrays]:
    """This process's part of every batch, the last one padded."""
    arrays = self._on_device(split)
    padding = self._placement.padding(self._dtype)
    for index in order.eval_indices(len(arrays["image"]), share):
      yield _eval_batch(arrays, padding, index)

  def _on_device(self, split: str) -> Arrays:
    self.load(split)
    if split not in self._device:
      self._device[split] = jax.device_put(
        self._host.pop(split), jax.local_devices()[0]
      )
    return self._device[split]

  def _require_memory(self, split: str, needed: int) -> None:
    stats = jax.local_devices()[0].memory_stats() or {}
    free = min(_host_memory(), stats.get("bytes_limit", math.inf))
    if needed > 0.8 * free:
      raise UserError(
        f"data.loader='resident': split {split!r} takes {needed / 1e9:.1f} GB"
        f" on a canvas of {self._placement.canvas}, of {free / 1e9:.1f} GB that"
        " exist; use --config.data.loader=tfdata, or a smaller data.canvas"
      )


def _host_memory() -> int | float:
  """Bytes of memory of this machine, infinite where it does not tell."""
  try:
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
  except (AttributeError, ValueError, OSError):
    return math.inf


@functools.partial(jax.jit, static_argnames="size")
def _train_batch(arrays: Arrays, shuffled, start, *, size: int) -> Arrays:
  index = jax.lax.dynamic_slice(shuffled, (start,), (size,))
  batch = {name: jnp.take(a, index, axis=0) for name, a in arrays.items()}
  return {**batch, "index": index}


@jax.jit
def _eval_batch(arrays: Arrays, padding, index) -> Arrays:
  batch = {}
  for name, values in arrays.items():
    taken = jnp.take(values, jnp.maximum(index, 0), axis=0)
    there = (index >= 0).reshape(-1, *[1] * (taken.ndim - 1))
    batch[name] = jnp.where(there, taken, padding[name])
  return {**batch, "index": index}
