"""Equations of a small network, counted by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.analysis import trace_network


class Network(nn.Module):
  """A convolution, and a product inside a jitted function."""

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Conv(4, (3, 3), name="first")(image)
    x = nn.Dropout(0.5, deterministic=not train)(x)
    return {"logits": Head(name="head")(x)}


class Head(nn.Module):
  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", nn.initializers.ones, (4, 2))

    @jax.jit
    def scores(x):
      return jnp.einsum("nhwc,ck->nhwk", x, kernel)

    return scores(x)


def _paths(trace, primitive):
  return [
    path
    for path, equation in trace.equations
    if equation.primitive.name == primitive
  ]


def test_every_convolution_and_product_is_listed_with_its_module():
  trace = trace_network(Network(), (8, 10))
  (convolution,) = _paths(trace, "conv_general_dilated")
  assert convolution.endswith("first")
  (product,) = _paths(trace, "dot_general")
  assert "head" in product and "scores" in product


def test_training_has_the_equations_of_dropout():
  evaluation, training = (
    trace_network(Network(), (8, 10), train=train) for train in (False, True)
  )
  assert not [p for p in _paths(evaluation, "select_n") if "Dropout" in p]
  assert [p for p in _paths(training, "select_n") if "Dropout" in p]


def test_shapes_are_those_of_outputs_and_variables():
  trace = trace_network(Network(), (8, 10), batch=3, channels=5)
  assert trace.outputs["logits"].shape == (3, 8, 10, 2)
  shapes = jax.tree.map(lambda a: a.shape, trace.variables["params"])
  assert shapes == {
    "first": {"kernel": (3, 3, 5, 4), "bias": (4,)},
    "head": {"kernel": (4, 2)},
  }
