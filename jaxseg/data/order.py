"""The order of examples, which is the same for every loader.

The training stream is a sequence of epochs. Each epoch is a permutation of the
whole split, drawn from (seed, epoch). Position p of the stream holds example
`permutation(seed, p // n)[p % n]`. Batch s holds the positions s B to
(s + 1) B - 1. It may span two epochs, and no example is dropped. Any batch can
be computed without the batches before it, so a run resumes exactly and at no
cost.

Evaluation takes every example once, grouped by the size of the network's input.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools

import jax
import numpy as np

from jaxseg import sharding
from jaxseg.errors import UserError


@dataclasses.dataclass(frozen=True)
class Share:
  """The part of every global batch that one process reads.

  Attributes:
    field: Config field of the batch size, for error messages.
    batch_size: Size of the global batch, over all processes.
    process_index: Index of this process.
    process_count: Number of processes.
  """

  field: str
  batch_size: int
  process_index: int = 0
  process_count: int = 1

  def __post_init__(self):
    if self.batch_size < 1 or self.batch_size % self.process_count:
      count = self.process_count
      below = max(self.batch_size // count, 1) * count
      raise UserError(
        f"{self.field}={self.batch_size} cannot be split over {count}"
        f" processes; nearest valid sizes: {below}, {below + count}"
      )

  @property
  def size(self) -> int:
    """Number of examples of each batch that this process reads."""
    return self.batch_size // self.process_count

  @property
  def offset(self) -> int:
    """Position in the global batch of the first of these examples."""
    return self.size * self.process_index


@functools.partial(jax.jit, static_argnames=("n", "epochs"))
def stream(seed, first_epoch, *, n: int, epochs: int) -> jax.Array:
  """Returns the indices of the examples of some epochs, `[epochs * n]`.

  Args:
    seed: Seed of the stream.
    first_epoch: First epoch to return.
    n: Number of examples of the split.
    epochs: Number of epochs to return.
  """
  key = jax.random.key(seed, impl="threefry2x32")

  def one(epoch):
    return jax.random.permutation(jax.random.fold_in(key, epoch), n)

  return jax.lax.map(one, first_epoch + np.arange(epochs)).reshape(-1)


def epochs_spanned(n: int, batch_size: int) -> int:
  """Returns the largest number of epochs that one batch can span."""
  return (batch_size + n - 2) // n + 1


def locate(step: int, n: int, share: Share) -> tuple[int, int]:
  """Locates this process's share of a batch in the stream.

  Args:
    step: Index of the global batch.
    n: Number of examples of the split.
    share: Part of the batch that this process reads.

  Returns:
    The first epoch of the batch, and the position, in `stream` from this epoch
    on, of the first example of this process.
  """
  epoch, start = divmod(step * share.batch_size, n)
  return epoch, start + share.offset


@functools.lru_cache(maxsize=4)
def _host_stream(seed: int, epoch: int, n: int, epochs: int) -> np.ndarray:
  with _on_host():
    return np.asarray(stream(seed, epoch, n=n, epochs=epochs))


def train_indices(step: int, n: int, seed: int, share: Share) -> np.ndarray:
  """Computes on the host the examples of this process in one batch.

  Args:
    step: Index of the global batch.
    n: Number of examples of the split.
    seed: Seed of the stream.
    share: Part of the batch that this process reads.

  Returns:
    Indices `[share.size]` into the split.
  """
  epoch, start = locate(step, n, share)
  epochs = epochs_spanned(n, share.batch_size)
  return _host_stream(seed, epoch, n, epochs)[start : start + share.size]


def eval_batches(
  shapes: Sequence[tuple[int, int]], batch_size: int, *, multiple: int = 1
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
  """Yields the examples of each global batch; all of them have one shape.

  Shapes come in the order of their first examples, and the examples of a shape
  in the order of the split. The last batch of a shape is padded with -1.

  Args:
    shapes: Size of the network's input for each example.
    batch_size: Size of a batch; a shape with fewer examples has smaller ones.
    multiple: The size is rounded up to a multiple of this number.

  Yields:
    The shape of a batch and the indices of its examples, int32.
  """
  groups: dict[tuple[int, int], list[int]] = {}
  for index, shape in enumerate(shapes):
    groups.setdefault(shape, []).append(index)
  for shape, group in groups.items():
    rows = sharding.round_up(min(batch_size, len(group)), multiple)
    for first in range(0, len(group), rows):
      indices = np.full(rows, -1, np.int32)
      part = group[first : first + rows]
      indices[: len(part)] = part
      yield shape, indices


def _on_host():
  """Places computations on the CPU, because the accelerator is training."""
  try:
    return jax.default_device(jax.local_devices(backend="cpu")[0])
  except RuntimeError:  # JAX was started without its CPU backend.
    return contextlib.nullcontext()
