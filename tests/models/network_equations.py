"""What a network is made of, equation by equation, with nothing computed."""

from collections.abc import Iterator
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp


def network_equations(
  model: nn.Module, size: tuple[int, int], *, batch: int = 2
):
  """Equations of a network in training, its outputs and its variables.

  Args:
    model: a network.
    size: height and width of the images.
    batch: how many images.

  Returns:
    Pairs of a path and an equation of the jaxpr, those inside of others
    included; and the shapes of outputs and variables. A path is made of
    modules and, where the equation is in one, of jitted functions.
  """
  keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
  image = jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32)
  run = functools.partial(model.init_with_output, train=True)
  jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(keys, image)
  return list(_equations(jaxpr.jaxpr)), shapes


def _equations(jaxpr, path: str = "") -> Iterator[tuple[str, object]]:
  for equation in jaxpr.eqns:
    inside = f"{path}/{equation.source_info.name_stack}".strip("/")
    yield inside, equation
    function = f"{inside}/{equation.params.get('name', '')}".rstrip("/")
    for value in jax.tree.leaves(list(equation.params.values())):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _equations(inner, function)
