"""One training step: a pure function of (state, batch).

The same function runs under `jax.jit` over a mesh, under `jax.pmap` and under
`jax.shard_map`. The latter two need the name of the mapped axis, as `axis_name`
and as a field of the network's batch normalisation.

Augmentation depends on the seed, the step and the indices of the examples, not
on how the batch is split over devices. Dropout depends on the seed and the
step, and under pmap and shard_map on the device as well.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxseg.tasks.task import Task
from jaxseg.training.state import TrainState


def step_keys(seed: int, step: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the random keys of a step for augmentation and for dropout."""
  augment_key, dropout_key = jax.random.split(
    jax.random.fold_in(jax.random.key(seed), step)
  )
  return augment_key, dropout_key


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  task: Task,
  seed: int = 0,
  ema_decay: float = 0.0,
  axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Takes one training step.

  Args:
    state: Train state.
    batch: Batch of the task. For segmentation, `image` uint8 `[n, h, w, 3]`,
      `label` `[n, h, w]`, `size` int32 `[n, 2]` and `index` int32 `[n]`.
    model: The network.
    optimizer: Optax transformation, for example from `optimizers.create`.
    task: Task that returns the inputs and targets of the batch, and the loss.
    seed: Seed of augmentation and dropout.
    ema_decay: Decay of the moving average of the parameters, if the state has
      one.
    axis_name: Name of the mapped axis under pmap or shard_map; None under jit.

  Returns:
    The next state, and the float32 scalars `loss`, the mean over the global
    batch, and `gradient_norm`.
  """
  augment_key, dropout_key = step_keys(seed, state.step)
  image, target = task.inputs(batch, augment_key)

  params = state.params
  if axis_name is not None:
    dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
    # Gradients with respect to device-varying parameters are not summed over
    # devices, so the psum below is correct under both pmap and shard_map.
    params = jax.lax.pcast(params, axis_name, to="varying")

  def loss_fn(params):
    outputs, updates = model.apply(
      {"params": params, "batch_stats": state.batch_stats},
      image,
      train=True,
      rngs={"dropout": dropout_key},
      mutable=["batch_stats"],
    )
    total, weight = task.loss(outputs, target)
    if axis_name is not None:
      weight = jax.lax.psum(weight, axis_name)
    # This is the mean over the global batch, or 0 if no pixel counts.
    mean = total / jnp.where(weight > 0, weight, 1.0)
    return mean, updates.get("batch_stats", {})

  (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  if axis_name is not None:
    loss, grads = jax.lax.psum((loss, grads), axis_name)

  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    ema = optax.incremental_update(params, ema, 1 - ema_decay)
  metrics = {"loss": loss, "gradient_norm": optax.tree.norm(grads)}
  state = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
  return state, metrics
