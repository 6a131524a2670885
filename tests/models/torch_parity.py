"""Compares a network with a PyTorch implementation on the same variables.

The implementation is a function `(params, image) -> logits` of PyTorch tensors.
`params` maps paths such as "backbone/conv1_1/conv/kernel" to arrays in jaxseg's
layout; image and logits have their channels first.
"""

from collections.abc import Callable
import functools

from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parity_table import channels_first, relative, relative_by_path


def tensors(tree, *, requires_grad: bool = False) -> dict:
  """Returns the arrays of a tree as PyTorch tensors, by path."""
  torch = pytest.importorskip("torch")
  return {
    path: torch.from_numpy(np.array(value)).requires_grad_(requires_grad)
    for path, value in traverse_util.flatten_dict(tree, sep="/").items()
  }


def assert_equal(
  original: Callable,
  model: nn.Module,
  variables,
  image,
  *,
  train: bool,
  floor: float = 0.0,
) -> None:
  """Checks that logits agree within 1e-4 and gradients within 1e-3.

  Differences are relative to the largest value of an array. The gradients are
  those of a random projection of the logits with respect to every parameter.
  Callers enable float64, because rounding errors of float32 can flip a ReLU or
  a maximum.

  Args:
    original: The PyTorch implementation.
    model: The network.
    variables: Variables of the network.
    image: `[n, h, w, c]`, of the variables' dtype.
    train: Value of the network's `train` argument.
    floor: Least denominator of a relative difference, see `relative_by_path`.
  """
  torch = pytest.importorskip("torch")
  params = tensors(variables["params"], requires_grad=True)
  image = np.array(image)
  want = original(params, channels_first(image)).permute(0, 2, 3, 1)
  pull = np.random.default_rng(1).standard_normal(want.shape)
  pull = pull.astype(image.dtype)
  (want * torch.from_numpy(pull)).sum().backward()
  expected = {path: value.grad.numpy() for path, value in params.items()}

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def gradients(params):
    outputs, _ = model.apply(
      {**variables, "params": params},
      jnp.asarray(image),
      train=train,
      mutable=["batch_stats"],
    )
    logits = outputs["logits"]
    return jnp.sum(logits * pull), logits

  grads, logits = jax.device_get(gradients(variables["params"]))
  assert relative(logits, want.detach().numpy()) < 1e-4
  grads = traverse_util.flatten_dict(grads, sep="/")
  for path, error in relative_by_path(grads, expected, floor).items():
    assert error < 1e-3, f"{path}: {error}"
