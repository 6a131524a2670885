"""Parameters that a gradient cannot reach are found, and no others."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxseg.analysis import unreached_parameters


class Network(nn.Module):
  """A trunk of one convolution with a skip around it.

  Attributes:
    fault: Name of a fault of the network; "" for none.
  """

  fault: str = ""

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Conv(4, (3, 3), name="trunk")(image)
    x = nn.Dropout(0.5, deterministic=not train)(x)
    x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
    skip = nn.Conv(4, (1, 1), name="skip")(image)
    if self.fault == "dropped":
      skip = jnp.zeros_like(skip)
    if self.fault == "stopped":
      skip = jax.lax.stop_gradient(skip)
    if self.fault == "infinite":
      skip = jnp.sqrt(skip - skip)
    logits = nn.Conv(2, (1, 1), name="head")(jnp.concatenate([x, skip], -1))
    return {"logits": logits}


def test_nothing_is_found_in_a_sound_network():
  assert unreached_parameters(Network(), (9, 12), train=False) == []


@pytest.mark.parametrize("fault", ["dropped", "stopped"])
def test_a_skip_without_gradient_is_found(fault):
  found = unreached_parameters(Network(fault), (9, 12), train=False)
  assert set(found) == {"skip/kernel", "skip/bias"}


def test_a_gradient_that_is_not_finite_is_found():
  found = unreached_parameters(Network("infinite"), (9, 12), train=False)
  assert set(found) == {"skip/kernel", "skip/bias"}


def test_training_draws_dropout_and_updates_statistics():
  assert unreached_parameters(Network(), (9, 12), batch=3, channels=1) == []


def test_variables_can_be_given():
  model = Network()
  image = jnp.zeros((1, 9, 12, 3))
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0), image)
  # The gradient of the trunk passes the head's kernel.
  head = jax.tree.map(jnp.zeros_like, variables["params"]["head"])
  params = {**variables["params"], "head": head}
  found = unreached_parameters(
    model, (9, 12), train=False, variables={**variables, "params": params}
  )
  expected = {"trunk", "norm", "skip"}
  assert {path.partition("/")[0] for path in found} == expected
