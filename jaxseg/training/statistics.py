"""Batch normalisation's statistics, of the network as it is now.

Running averages follow the weights from a distance: where a network learns
fast they describe one that is no longer there. SegNet and DeconvNet average
the statistics of many training batches after training instead (the tutorial's
compute_bn_statistics.py; "precise" batch normalisation in Wu & Johnson 2021,
arXiv:2105.07576, Sec. 3). `config.train.norm_batches` does so before each
evaluation.
"""

from collections.abc import Iterable
import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg import sharding
from jaxseg.training.state import TrainState
from jaxseg.training.step import Recipe, augmented


def batch_statistics(
  state: TrainState,
  batch: dict[str, jax.Array],
  step: jax.Array,
  *,
  model: nn.Module,
  recipe: Recipe,
) -> Any:
  """The statistics of one training batch, for the weights to be evaluated.

  A running average r becomes m r + (1 - m) b. From what zeros and ones become
  follow m and the batch's own b, whichever momentum a norm has and however
  often it was applied. Both passes compute the same b, so that the compiler
  makes one of them.

  Args:
    state: the train state.
    batch: as `train_step` takes it.
    step: whose augmentation and dropout to draw.
    model: the network.
    recipe: augmentation and seed.
  """
  image, _, dropout_key = augmented(step, batch, recipe)

  def updated(value: float):
    start = jax.tree.map(lambda a: jnp.full_like(a, value), state.batch_stats)
    _, updates = model.apply(
      {"params": state.variables()["params"], "batch_stats": start},
      image,
      train=True,
      rngs={"dropout": dropout_key},
      mutable=["batch_stats"],
    )
    return updates["batch_stats"]

  def solve(old, zero, one):
    kept = one - zero
    # A frozen norm keeps all that it had.
    return jnp.where(kept < 1, zero / jnp.where(kept < 1, 1 - kept, 1), old)

  return jax.tree.map(solve, state.batch_stats, updated(0.0), updated(1.0))


class Settle:
  """Replaces running statistics by the mean over some training batches."""

  def __init__(self, model: nn.Module, recipe: Recipe, count: int, mesh):
    self._count = count
    self._statistics = jax.jit(
      functools.partial(batch_statistics, model=model, recipe=recipe),
      out_shardings=sharding.replicated(mesh),
    )

  def __call__(
    self, state: TrainState, batches: Iterable[dict[str, jax.Array]]
  ) -> TrainState:
    """The state with statistics of the next batches.

    Args:
      state: the train state; of a network without norms it comes back as is.
      batches: those that training would see next.
    """
    if not state.batch_stats:
      return state
    total, step = None, int(state.step)
    for i, batch in enumerate(itertools.islice(batches, self._count)):
      part = self._statistics(state, batch, jnp.asarray(step + i, jnp.int32))
      total = part if total is None else jax.tree.map(jnp.add, total, part)
    mean = jax.tree.map(lambda a: a / self._count, total)
    return state.replace(batch_stats=mean)
