"""The equations of a network, listed without running it."""

from collections.abc import Iterator
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class NetworkTrace(NamedTuple):
  """A network as JAX traces it.

  Attributes:
    equations: Pairs of a path and an equation of the jaxpr, in the order of
      evaluation. The path joins the names of the enclosing modules and jitted
      functions with "/". The equations of an inner jaxpr follow the equation
      that calls it.
    outputs: Outputs of the network, a `jax.ShapeDtypeStruct` for each array.
    variables: Variables of the network, a `jax.ShapeDtypeStruct` for each
      array.
  """

  equations: list[tuple[str, Any]]
  outputs: Any
  variables: Any


def trace_network(
  model: nn.Module,
  size: tuple[int, int],
  *,
  batch: int = 1,
  channels: int = 3,
  train: bool = False,
) -> NetworkTrace:
  """Traces the initialisation and one call of a network.

  Args:
    model: Network or backbone, called as `model(image, train=train)`.
    size: Height and width of the images.
    batch: Number of images.
    channels: Number of channels of the images.
    train: Value of the module's `train` argument.

  Returns:
    The equations, those of the initialisers included, and the shapes of
    outputs and variables.
  """
  keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
  image = jax.ShapeDtypeStruct((batch, *size, channels), jnp.float32)
  run = functools.partial(model.init_with_output, train=train)
  jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(keys, image)
  return NetworkTrace(list(_walk(jaxpr.jaxpr)), *shapes)


def _walk(jaxpr, path: str = "") -> Iterator[tuple[str, Any]]:
  """Yields the equations of a jaxpr and of the jaxprs in its parameters."""
  for equation in jaxpr.eqns:
    module = f"{path}/{equation.source_info.name_stack}".strip("/")
    yield module, equation
    function = f"{module}/{equation.params.get('name', '')}".rstrip("/")
    for value in jax.tree.leaves(list(equation.params.values())):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _walk(inner, function)
