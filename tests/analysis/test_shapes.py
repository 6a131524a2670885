"""Shapes of a small network, by hand."""

import flax.linen as nn
import jax
import numpy as np

from jaxseg.analysis import network_shapes, total_size


class Network(nn.Module):
  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Conv(4, (3, 3), strides=2, name="conv")(image)
    x = nn.Dropout(0.5, deterministic=not train)(x)
    return {"logits": nn.BatchNorm(not train, name="norm")(x)}


def test_shapes_of_outputs_and_variables():
  outputs, variables = network_shapes(
    Network(), (9, 12), batch=2, channels=1, train=True
  )
  assert outputs["logits"].shape == (2, 5, 6, 4)
  shapes = jax.tree.map(lambda a: a.shape, variables)
  assert shapes["params"]["conv"] == {"kernel": (3, 3, 1, 4), "bias": (4,)}
  assert shapes["batch_stats"]["norm"] == {"mean": (4,), "var": (4,)}


def test_intermediates_can_be_captured():
  _, variables = network_shapes(Network(), (9, 12), capture_intermediates=True)
  (x,) = variables["intermediates"]["conv"]["__call__"]
  assert x.shape == (1, 5, 6, 4)


def test_sizes_add_up():
  """9 * 3 * 4 + 4 of the convolution, 4 + 4 of the norm."""
  _, variables = network_shapes(Network(), (9, 12))
  assert total_size(variables["params"]) == 108 + 4 + 4 + 4
  assert total_size({"a": np.zeros((2, 3)), "b": [np.zeros(())]}) == 7
  assert total_size({}) == 0
