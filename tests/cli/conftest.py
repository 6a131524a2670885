"""A trained run without training: one linear layer over colours."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg.runs.run import Run

PALETTE = ((0, 0, 0), (255, 0, 0), (0, 200, 0), (0, 0, 255))


class Brightest(nn.Module):
  """Predicts class 1, 2 or 3 for red, green or blue, and 0 for dark."""

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Dense(4, name="dense")(image)
    return {"logits": x}


@pytest.fixture
def run():
  """A run of canvas 24 x 32 with four classes."""
  c = configs.base()
  c.name = "brightest"
  c.data.canvas = (24, 32)
  c.data.class_names = ("dark", "red", "green", "blue")
  c.data.palette = PALETTE
  c.data.mean, c.data.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
  kernel = np.zeros((3, 4), np.float32)
  kernel[:, 1:] = np.eye(3)
  bias = np.array([-0.5, 0, 0, 0], np.float32)
  dense = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
  variables = {"params": {"dense": dense}, "batch_stats": {}}
  return Run(c, Brightest(), variables, 7)
