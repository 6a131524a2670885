"""One training step: a pure function of (state, batch).

A step is one update of the optimizer, from one global batch. The batch may be
computed in parts, one after the other, which needs less memory; the loss and
the gradient are the means over the whole batch all the same.

The same function runs under `jax.jit` over a mesh, under `jax.pmap` and under
`jax.shard_map`. The latter two need the name of the mapped axis, as `axis_name`
and as a field of the network's batch normalisation.

Augmentation of an example depends on the seed and on its position in the stream
of training examples, not on how the batch is split over devices or parts.
Dropout depends on the seed, the step and the part, and under pmap and shard_map
on the device as well.
"""

from collections.abc import Callable
import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxseg.tasks.task import Batch, Task
from jaxseg.training.state import TrainState

# The data order folds the epoch into the seed's key; no epoch has this number.
_KEY_NUMBER = 2**32 - 1


def split_batch(
  batch: Batch,
  step: jax.Array,
  *,
  seed: int,
  parts: int,
  axis_name: str | None = None,
) -> tuple[Batch, jax.Array, jax.Array]:
  """Splits a batch into parts and returns their random keys.

  Example i belongs to part i modulo `parts`. Every device therefore has the
  same share of each part, and a part has the same examples on any layout.

  Args:
    batch: Batch of a task, `[n, ...]` arrays; under pmap and shard_map the
      share of this device.
    step: Number of the batch in the stream.
    seed: Seed of augmentation and dropout.
    parts: Number of parts, a divisor of n.
    axis_name: Name of the mapped axis under pmap or shard_map.

  Returns:
    The batch as `[parts, n / parts, ...]` arrays, the key of each example's
    augmentation, `[parts, n / parts]`, and the key of each part's dropout,
    `[parts]`.
  """
  n = size = jax.tree.leaves(batch)[0].shape[0]
  row = jnp.arange(n, dtype=jnp.uint32)
  step = jnp.asarray(step).astype(jnp.uint32)
  augment_key, dropout_key = jax.random.split(
    jax.random.fold_in(jax.random.key(seed), _KEY_NUMBER)
  )
  dropout_key = jax.random.fold_in(dropout_key, step)
  if axis_name is not None:
    device = jax.lax.axis_index(axis_name)
    dropout_key = jax.random.fold_in(dropout_key, device)
    row += device.astype(jnp.uint32) * n
    size *= jax.lax.axis_size(axis_name)
  # Position of each example in the stream.
  position = step * size + row
  keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, position)

  def split(values):
    values = values.reshape(n // parts, parts, *values.shape[1:])
    return jnp.swapaxes(values, 0, 1)

  batch, keys = jax.tree.map(split, (batch, keys))
  return batch, keys, jax.random.split(dropout_key, parts)


def train_step(
  state: TrainState,
  batch: Batch,
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  task: Task,
  seed: int = 0,
  parts: int = 1,
  ema_decay: float = 0.0,
  axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Takes one training step, which is one update of the optimizer.

  Args:
    state: Train state.
    batch: Batch of the task. For segmentation, `image` uint8 `[n, h, w, 3]`,
      `label` `[n, h, w]`, `size` int32 `[n, 2]` and `index` int32 `[n]`.
    model: The network.
    optimizer: Optax transformation, for example from `optimizers.create`.
    task: Task that returns the inputs and targets of the batch, and the loss.
    seed: Seed of augmentation and dropout.
    parts: Number of parts that the batch is computed in, one after the other.
      Batch normalisation sees one part at a time.
    ema_decay: Largest decay of the moving average of the variables, if the
      state has one.
    axis_name: Name of the mapped axis under pmap or shard_map; None under jit.

  Returns:
    The next state, and the float32 scalars `loss`, the mean over the global
    batch, and `gradient_norm`.
  """
  loss, grads, batch_stats = _loss_and_gradient(
    state,
    batch,
    model=model,
    task=task,
    seed=seed,
    parts=parts,
    axis_name=axis_name,
  )
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    variables = {"params": params, "batch_stats": batch_stats}
    decay = _warm_decay(ema_decay, state.step)
    ema = optax.incremental_update(variables, ema, 1 - decay)
  metrics = {"loss": loss, "gradient_norm": optax.tree.norm(grads)}
  state = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
  return state, metrics


def _loss_and_gradient(
  state: TrainState,
  batch: Batch,
  *,
  model: nn.Module,
  task: Task,
  seed: int,
  parts: int,
  axis_name: str | None,
) -> tuple[jax.Array, Any, Any]:
  """Returns loss and gradient of the global batch, and new batch statistics.

  The arguments are those of `train_step`.
  """
  params = state.params
  if axis_name is not None:
    # Gradients with respect to device-varying parameters are not summed over
    # devices, so the psum below is correct under both pmap and shard_map.
    params = _varying(params, axis_name)

  def loss_fn(params, batch_stats, image, target, dropout_key):
    outputs, updates = model.apply(
      {"params": params, "batch_stats": batch_stats},
      image,
      train=True,
      rngs={"dropout": dropout_key},
      mutable=["batch_stats"],
    )
    total, weight = task.loss(outputs, target)
    if axis_name is not None:
      weight = jax.lax.psum(weight, axis_name)
    return total / _or_one(weight), (weight, updates.get("batch_stats", {}))

  def part_step(carry, part):
    mean, weight, batch_stats = carry
    part_batch, keys, dropout_key = part
    image, target = task.inputs(part_batch, keys)
    (loss, (part_weight, batch_stats)), grads = jax.value_and_grad(
      loss_fn, has_aux=True
    )(params, batch_stats, image, target, dropout_key)
    # Loss and gradient are averaged over all parts with the weights of the
    # parts; both are 0 if no pixel counts.
    weight += part_weight
    share = part_weight / _or_one(weight)
    mean = jax.tree.map(
      lambda old, new: old + share * (new - old), mean, (loss, grads)
    )
    return mean, weight, batch_stats

  zero = jnp.zeros((), jnp.float32)
  mean = (zero, jax.tree.map(jnp.zeros_like, state.params))
  if axis_name is not None:
    mean = _varying(mean, axis_name)
  mean, _, batch_stats = fold_parts(
    part_step,
    (mean, zero, state.batch_stats),
    split_batch(batch, state.step, seed=seed, parts=parts, axis_name=axis_name),
    parts,
  )
  if axis_name is not None:
    mean = jax.lax.psum(mean, axis_name)
  return *mean, batch_stats


def fold_parts(function: Callable, carry: Any, xs: Any, count: int) -> Any:
  """Returns function(function(carry, xs[0]), xs[1]) and so on.

  On a CPU a training step in the body of a loop took 25 times as long as
  outside of it (jax 0.10.2), so the loop is written out there. Elsewhere it is
  compiled once.

  Args:
    function: Function of (carry, x) to the next carry.
    carry: The first carry.
    xs: Tree of arrays `[count, ...]`.
    count: Number of calls.
  """

  def written_out(carry, xs):
    for i in range(count):
      carry = function(carry, jax.tree.map(operator.itemgetter(i), xs))
    return carry

  def loop(carry, xs):
    return jax.lax.scan(lambda c, x: (function(c, x), None), carry, xs)[0]

  if count == 1:
    return written_out(carry, xs)
  return jax.lax.platform_dependent(carry, xs, cpu=written_out, default=loop)


def _warm_decay(largest: float, updates: jax.Array) -> jax.Array:
  """Returns the decay of the moving average after so many updates.

  The first averages would otherwise be mostly initial values. The decay is that
  of tf.train.ExponentialMovingAverage with `num_updates`.
  """
  return jnp.minimum(largest, (1 + updates) / (10 + updates))


def _or_one(weight: jax.Array) -> jax.Array:
  """Returns a denominator, which is 1 in place of 0."""
  return jnp.where(weight > 0, weight, 1.0)


def _varying(tree: Any, axis_name: str) -> Any:
  """Marks values as different on each device of a mapped axis."""
  return jax.lax.pcast(tree, axis_name, to="varying")
