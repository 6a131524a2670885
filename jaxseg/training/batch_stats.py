"""Recomputes the statistics of batch normalisation for the current weights.

Running averages lag behind the weights, in particular while a network learns
fast. SegNet and DeconvNet therefore average the statistics of many training
batches after training (compute_bn_statistics.py of the SegNet tutorial; called
"precise" batch normalisation by Wu & Johnson 2021, arXiv:2105.07576, Sec. 3).
If `config.train.norm_batches` is set, this is done before each evaluation.
"""

from collections.abc import Iterable
import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg import sharding
from jaxseg.tasks.task import Task
from jaxseg.training.state import TrainState
from jaxseg.training.step import step_keys


def batch_statistics(
  state: TrainState,
  batch: dict[str, jax.Array],
  step: jax.Array,
  *,
  model: nn.Module,
  task: Task,
  seed: int = 0,
) -> Any:
  """Returns the batch statistics of one training batch.

  A norm replaces its running average r by m r + (1 - m) b, with its momentum m
  and the batch statistic b. This function runs the update from r = 0 and from
  r = 1. The two results determine m and b, for any momentum and any number of
  applications of a norm. Both passes compute the same b, so the compiler merges
  them into one.

  Args:
    state: Train state. Its averaged parameters are used if it has them.
    batch: Training batch.
    step: Step whose random keys are used for augmentation and dropout.
    model: The network.
    task: Task that augments the batch.
    seed: Seed of augmentation and dropout.

  Returns:
    A tree like `state.batch_stats`; the statistics of frozen norms are
    unchanged.
  """
  augment_key, dropout_key = step_keys(seed, step)
  image, _ = task.inputs(batch, augment_key)

  def updated(value: float):
    old = jax.tree.map(lambda a: jnp.full_like(a, value), state.batch_stats)
    _, updates = model.apply(
      {"params": state.variables()["params"], "batch_stats": old},
      image,
      train=True,
      rngs={"dropout": dropout_key},
      mutable=["batch_stats"],
    )
    return updates["batch_stats"]

  def solve(old, zero, one):
    momentum = one - zero
    is_frozen = momentum >= 1
    return jnp.where(
      is_frozen, old, zero / jnp.where(is_frozen, 1, 1 - momentum)
    )

  return jax.tree.map(solve, state.batch_stats, updated(0.0), updated(1.0))


def make_recompute_batch_stats(
  model: nn.Module,
  task: Task,
  *,
  seed: int,
  count: int,
  mesh: jax.sharding.Mesh,
):
  """Returns a function that replaces running averages by means over batches.

  Args:
    model: The network.
    task: Task that augments the batches.
    seed: Seed of augmentation and dropout.
    count: Number of batches to average over.
    mesh: Devices that batches are split over.

  Returns:
    A function of (state, batches) that returns a state whose `batch_stats` are
    the mean statistics of the next `count` batches. The state of a network
    without batch normalisation is returned unchanged.
  """
  statistics = jax.jit(
    functools.partial(batch_statistics, model=model, task=task, seed=seed),
    out_shardings=sharding.replicated(mesh),
  )

  def recompute(
    state: TrainState, batches: Iterable[dict[str, jax.Array]]
  ) -> TrainState:
    if not state.batch_stats:
      return state
    total, step = None, int(state.step)
    for i, batch in enumerate(itertools.islice(batches, count)):
      part = statistics(state, batch, jnp.asarray(step + i, jnp.int32))
      total = part if total is None else jax.tree.map(jnp.add, total, part)
    mean = jax.tree.map(lambda a: a / count, total)
    return state.replace(batch_stats=mean)

  return recompute
