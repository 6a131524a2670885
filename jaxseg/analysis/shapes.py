"""Shapes and sizes of a network, computed without running it."""

import functools
from typing import Any

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
  **kwargs: Any,
) -> tuple[Any, Any]:
  """Returns the shapes of a network's outputs and variables.

  Nothing is computed, so a full-size network takes a fraction of a second.

  Args:
    model: Network or backbone, called as `model(image, train=train)`.
    size: Height and width of the images.
    batch: Number of images.
    channels: Number of channels of the images.
    train: Value of the module's `train` argument.
    **kwargs: Further arguments of `init_with_output`, for example
      `capture_intermediates=True`.

  Returns:
    (outputs, variables), with a `jax.ShapeDtypeStruct` in place of each array.
  """
  keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
  image = jax.ShapeDtypeStruct((batch, *size, channels), jnp.float32)
  run = functools.partial(model.init_with_output, train=train, **kwargs)
  return jax.eval_shape(run, keys, image)


def total_size(tree: Any) -> int:
  """Returns how many numbers all arrays of a tree hold together.

  Args:
    tree: Pytree of arrays or of `jax.ShapeDtypeStruct`, for example
      `variables["params"]`.
  """
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
