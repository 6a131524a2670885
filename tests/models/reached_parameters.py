"""Which parameters a network can learn: those that a gradient reaches."""

import functools

from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def unreached_parameters(
  model: nn.Module,
  shape: tuple[int, int, int],
  heads: tuple[str, ...] = ("logits",),
) -> list[str]:
  """Paths of parameters without a gradient, or with one that is not finite.

  Of a random projection of all outputs, in training.

  Args:
    model: a network.
    shape: how many images, their height and width.
    heads: the outputs that it ought to have.
  """
  rng = np.random.default_rng(0)
  image, pull = (
    jnp.asarray(rng.standard_normal((*shape, channels)), jnp.float32)
    for channels in (3, model.num_classes)
  )
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(1), image)

  @jax.jit
  @jax.grad
  def gradient(params):
    outputs, _ = model.apply(
      {**variables, "params": params},
      image,
      train=True,
      rngs={"dropout": jax.random.key(2)},
      mutable=["batch_stats"],
    )
    assert outputs.keys() == set(heads)
    return sum((pull * value).sum() for value in outputs.values())

  grads = traverse_util.flatten_dict(gradient(variables["params"]), sep="/")
  return [
    path
    for path, value in grads.items()
    if not (np.isfinite(value).all() and np.abs(value).max() > 0)
  ]
