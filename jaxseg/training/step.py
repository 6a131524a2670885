"""One training step: a pure function of (state, batch).

The same function runs under `jax.jit` over a mesh, under `jax.pmap` and under
`jax.shard_map`; the latter two pass the mapped `axis_name` (and give it to
the network's norm as well). All randomness comes from (seed, step, index of
the example in its data set), so it does not depend on the layout.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxseg import augment, losses
from jaxseg.image_label import largest_class
from jaxseg.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a step needs besides network and optimizer; hashable.

  Attributes:
    augment: keyword arguments of `augment.augment`.
    loss: keyword arguments of `losses.heads_loss`.
    ema_decay: of the moving average of the parameters, if the state has one.
    image_classes: classes of the data set when images are classified as a
      whole; 0 for segmentation.
  """

  seed: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  augment: tuple[tuple[str, Any], ...]
  loss: tuple[tuple[str, Any], ...]
  ema_decay: float = 0.0
  image_classes: int = 0

  @classmethod
  def from_config(cls, config: ConfigDict) -> "Recipe":
    """Reads a resolved configuration."""
    data = config.data
    loss = config.loss
    return cls(
      seed=config.seed,
      mean=tuple(data.mean),
      std=tuple(data.std),
      augment=tuple(
        {
          **config.augment.to_dict(),
          "mean": tuple(data.mean),
          "ignore_label": data.ignore_label,
        }.items()
      ),
      loss=(
        ("ignore_label", data.ignore_label),
        ("head_weights", tuple(loss.heads.items())),
        ("class_weights", tuple(loss.class_weights) or None),
        ("label_smoothing", loss.label_smoothing),
        ("normalise_by", loss.normalise_by),
        ("label_stride", loss.label_stride),
        ("border_weight", loss.border_weight),
        ("border_std", loss.border_std),
      ),
      ema_decay=config.optimizer.ema_decay,
      image_classes=(
        len(data.class_names) if config.task == "classification" else 0
      ),
    )


def augmented(
  step: jax.Array, batch: dict[str, jax.Array], recipe: Recipe
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """What the network sees of a batch in this step, its label, dropout's key."""
  key = jax.random.fold_in(jax.random.key(recipe.seed), step)
  augment_key, dropout_key = jax.random.split(key)
  image, label = augment.augment(
    augment_key,
    batch["image"],
    batch["label"],
    batch["size"],
    batch["index"],
    **dict(recipe.augment),
  )
  image = augment.normalise(image, recipe.mean, recipe.std)
  return image, label, dropout_key


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  recipe: Recipe,
  axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Takes one step.

  Args:
    state: the train state.
    batch: `image` uint8 [n, h, w, 3], `label` [n, h, w], `size` [n, 2] and
      `index` [n]; see `jaxseg.data`.
    model: the network.
    optimizer: from `optimizers.create`.
    recipe: augmentation, loss and seed.
    axis_name: the mapped axis under pmap or shard_map; None under jit.

  Returns:
    The next state, and float32 scalars `loss` (mean over the valid pixels of
    the whole global batch) and `gradient_norm`.
  """
  image, label, dropout_key = augmented(state.step, batch, recipe)
  if recipe.image_classes:
    label = largest_class(
      label,
      num_classes=recipe.image_classes,
      ignore_label=dict(recipe.loss)["ignore_label"],
    )

  params = state.params
  if axis_name is not None:
    dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
    # Gradients of device-varying parameters stay local, so that the one psum
    # below is right under pmap and shard_map alike.
    params = jax.lax.pcast(params, axis_name, to="varying")

  def loss_fn(params):
    outputs, updates = model.apply(
      {"params": params, "batch_stats": state.batch_stats},
      image,
      train=True,
      rngs={"dropout": dropout_key},
      mutable=["batch_stats"],
    )
    total, weight = losses.heads_loss(outputs, label, **dict(recipe.loss))
    if axis_name is not None:
      weight = jax.lax.psum(weight, axis_name)
    # The mean over the global batch, taken once; 0 if nothing is valid.
    mean = total / jnp.where(weight > 0, weight, 1.0)
    return mean, updates.get("batch_stats", {})

  (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  if axis_name is not None:
    loss, grads = jax.lax.psum((loss, grads), axis_name)

  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    ema = optax.incremental_update(params, ema, 1 - recipe.ema_decay)
  metrics = {"loss": loss, "gradient_norm": optax.tree.norm(grads)}
  state = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
  return state, metrics
