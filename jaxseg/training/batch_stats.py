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
from jaxseg.tasks.task import Batch, Task
from jaxseg.training.state import TrainState
from jaxseg.training.step import fold_parts, split_batch


def batch_statistics(
  state: TrainState,
  batch: Batch,
  step: jax.Array,
  *,
  model: nn.Module,
  task: Task,
  seed: int = 0,
  parts: int = 1,
) -> Any:
  """Returns the batch statistics of one training batch.

  A norm replaces its running average r by m r + (1 - m) b, with its momentum m
  and the batch statistic b. This function runs the update from r = 0, which
  gives z = (1 - m) b, and from r = z, which gives m z + z. The two results
  determine m and b, for any momentum and any number of applications of a norm,
  and without cancellation of a large b. (If z is 0, the second run starts from
  1.) Both runs compute the same b, so the compiler merges them into one.

  Args:
    state: Train state. Its averaged variables are used if it has them.
    batch: Training batch.
    step: Number of the batch, which keys augmentation and dropout.
    model: The network.
    task: Task that augments the batch.
    seed: Seed of augmentation and dropout.
    parts: Number of parts that the batch is computed in, as in training.

  Returns:
    A tree like `state.batch_stats`, with the means over the parts; the
    statistics of frozen norms are unchanged.
  """
  variables = state.variables()
  old = variables["batch_stats"]

  def statistics(image, dropout_key):
    def updated(running):
      _, updates = model.apply(
        {"params": variables["params"], "batch_stats": running},
        image,
        train=True,
        rngs={"dropout": dropout_key},
        mutable=["batch_stats"],
      )
      return updates["batch_stats"]

    first = updated(jax.tree.map(jnp.zeros_like, old))
    start = jax.tree.map(lambda z: jnp.where(z == 0, 1, z), first)
    return jax.tree.map(_solve, old, first, start, updated(start))

  def part_step(carry, part):
    mean, count = carry
    part_batch, keys, dropout_key = part
    image, _ = task.inputs(part_batch, keys)
    new = statistics(image, dropout_key)
    return running_mean(mean, new, count), count + 1

  mean, _ = fold_parts(
    part_step,
    (jax.tree.map(jnp.zeros_like, old), 0),
    split_batch(batch, step, seed=seed, parts=parts),
    parts,
  )
  return mean


def running_mean(mean: Any, new: Any, count: jax.Array | int) -> Any:
  """Returns the mean of trees, given the mean of the first `count`.

  The mean of equal trees is that tree, bit for bit.
  """
  return jax.tree.map(lambda a, b: a + (b - a) / (count + 1), mean, new)


def _solve(old, first, start, second):
  """Returns b of m 0 + (1 - m) b = first and m start + (1 - m) b = second."""
  momentum = (second - first) / start
  is_frozen = momentum >= 1
  return jnp.where(
    is_frozen, old, first / jnp.where(is_frozen, 1, 1 - momentum)
  )


def make_recompute_batch_stats(
  model: nn.Module,
  task: Task,
  *,
  seed: int,
  parts: int,
  count: int,
  mesh: jax.sharding.Mesh,
):
  """Returns a function that replaces running averages by means over batches.

  Args:
    model: The network.
    task: Task that augments the batches.
    seed: Seed of augmentation and dropout.
    parts: Number of parts that a batch is computed in, as in training.
    count: Number of batches to average over.
    mesh: Devices that batches are split over.

  Returns:
    A function of (state, batches) that returns a state that is evaluated with
    the mean statistics of the next `count` batches. The state of a network
    without batch normalisation is returned unchanged.
  """
  statistics = jax.jit(
    functools.partial(
      batch_statistics, model=model, task=task, seed=seed, parts=parts
    ),
    out_shardings=sharding.replicated(mesh),
  )

  def recompute(state: TrainState, batches: Iterable[Batch]) -> TrainState:
    if not state.batch_stats:
      return state
    mean, step = None, int(state.step)
    for i, batch in enumerate(itertools.islice(batches, count)):
      new = statistics(state, batch, jnp.asarray(step + i, jnp.int32))
      mean = new if mean is None else running_mean(mean, new, i)
    return state.with_evaluated_stats(mean)

  return recompute
