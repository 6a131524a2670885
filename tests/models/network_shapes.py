"""Shapes of what a network returns and holds, with nothing computed."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp


def network_shapes(
  model: nn.Module,
  size: tuple[int, int],
  *,
  batch: int = 1,
  channels: int = 3,
  train: bool = False,
  **kwargs,
):
  """Outputs and variables of a network, for images of this size.

  Args:
    model: a network or a backbone.
    size: height and width of the images.
    batch: how many images.
    channels: of the images.
    train: whether the network is called as in training.
    **kwargs: other arguments of `init_with_output`.
  """
  keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
  image = jax.ShapeDtypeStruct((batch, *size, channels), jnp.float32)
  run = functools.partial(model.init_with_output, train=train, **kwargs)
  return jax.eval_shape(run, keys, image)


def total_size(tree) -> int:
  """How many numbers the arrays of a tree hold."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
