"""Which parameters of a network receive a gradient."""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp


def unreached_parameters(
  model: nn.Module,
  size: tuple[int, int],
  *,
  batch: int = 2,
  channels: int = 3,
  train: bool = True,
  variables: Mapping[str, Any] | None = None,
  seed: int = 0,
) -> list[str]:
  """Returns the parameters whose gradient is zero everywhere or not finite.

  The gradient is that of a random projection of all outputs, for an image of
  normal noise. A parameter that it does not reach cannot be trained: a skip
  that is dropped, a head that is not returned, or a ReLU that never opens.

  Args:
    model: Network or backbone, called as `model(image, train=train)`.
    size: Height and width of the images.
    batch: Number of images.
    channels: Number of channels of the images.
    train: Value of the module's `train` argument.
    variables: Variables of the network; None draws them with `model.init`.
    seed: Seed of variables, image, dropout and projection.

  Returns:
    Paths below `params`, such as "head/classifier/kernel".
  """
  shape = (batch, *size, channels)

  @jax.jit
  def is_reached(key, variables):
    keys = jax.random.split(key, 4)
    image = jax.random.normal(keys[0], shape)
    if variables is None:
      variables = model.init(keys[1], image, train=False)

    def projection(params):
      outputs, _ = model.apply(
        {**variables, "params": params},
        image,
        train=train,
        rngs={"dropout": keys[2]},
        mutable=["batch_stats"],
      )
      return _project(outputs, keys[3])

    grads = jax.grad(projection)(variables["params"])
    return jax.tree.map(lambda g: jnp.isfinite(g).all() & jnp.any(g), grads)

  reached = is_reached(jax.random.key(seed), variables)
  flat = traverse_util.flatten_dict(reached, sep="/")
  return [path for path, found in flat.items() if not found]


def _project(outputs: Any, key: jax.Array) -> jax.Array:
  """Returns the sum of all numbers of a tree, each with a random weight."""
  leaves = jax.tree.leaves(outputs)
  keys = jax.random.split(key, len(leaves))
  total = jnp.zeros(())
  for leaf, k in zip(leaves, keys, strict=True):
    total += jnp.sum(jax.random.normal(k, leaf.shape) * leaf)
  return total
