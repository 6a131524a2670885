"""The one order in which examples are trained on, whichever loader reads them.

The training stream is epoch after epoch, each a permutation of the whole
split drawn from (seed, epoch); position p of the stream is example
`permutation(seed, p // n)[p % n]`. Batch s is positions s B ... (s + 1) B - 1:
it may straddle two epochs, and nothing is dropped. So any batch can be had
without those before it, which is what makes resuming exact and free.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import functools

import jax
import numpy as np

from jaxseg.errors import UserError


@dataclasses.dataclass(frozen=True)
class Share:
  """The part of every global batch that one process reads.

  Attributes:
    field: where the batch size is set, for messages.
    batch_size: of the global batch, over all processes.
    process_index: which process this is.
    process_count: how many there are.
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
    """Examples this process reads of each batch."""
    return self.batch_size // self.process_count

  @property
  def offset(self) -> int:
    """Where in the global batch they begin."""
    return self.size * self.process_index


@functools.partial(jax.jit, static_argnames=("n", "epochs"))
def stream(seed, first_epoch, *, n: int, epochs: int) -> jax.Array:
  """The stream's examples from `first_epoch` on, `[epochs * n]`."""
  key = jax.random.key(seed, impl="threefry2x32")

  def one(epoch):
    return jax.random.permutation(jax.random.fold_in(key, epoch), n)

  return jax.lax.map(one, first_epoch + np.arange(epochs)).reshape(-1)


def epochs_spanned(n: int, batch_size: int) -> int:
  """The most epochs that one batch can touch."""
  return (batch_size + n - 2) // n + 1


def locate(step: int, n: int, share: Share) -> tuple[int, int]:
  """First epoch of global batch `step`; this process's start in `stream`."""
  epoch, start = divmod(step * share.batch_size, n)
  return epoch, start + share.offset


@functools.lru_cache(maxsize=4)
def _host_stream(seed: int, epoch: int, n: int, epochs: int) -> np.ndarray:
  with _on_host():
    return np.asarray(stream(seed, epoch, n=n, epochs=epochs))


def train_indices(step: int, n: int, seed: int, share: Share) -> np.ndarray:
  """Examples of this process in global batch `step`, computed on the host."""
  epoch, start = locate(step, n, share)
  epochs = epochs_spanned(n, share.batch_size)
  return _host_stream(seed, epoch, n, epochs)[start : start + share.size]


def eval_indices(n: int, share: Share) -> Iterator[np.ndarray]:
  """Examples 0..n-1 in order, a batch at a time; -1 fills the last one."""
  for first in range(0, n, share.batch_size):
    indices = first + share.offset + np.arange(share.size, dtype=np.int32)
    yield np.where(indices < n, indices, -1).astype(np.int32)


def _on_host():
  """Keeps the host's order off the accelerator, which is busy training."""
  try:
    return jax.default_device(jax.local_devices(backend="cpu")[0])
  except RuntimeError:  # JAX was started without its CPU backend
    return contextlib.nullcontext()
