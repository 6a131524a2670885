"""Random variables for the shapes of a network, drawn in NumPy.

`init` sets biases, means, scales and variances to zeros and ones, which hide
arrays that are confused with each other. Here all arrays are random, and every
unit receives a signal.
"""

import jax
import numpy as np


def he_positive(shapes, dtype=np.float32, *, low=0.0, high=0.1, seed=0):
  """Draws He-normal kernels, and vectors uniform between `low` and `high`."""
  rng = np.random.default_rng(seed)

  def draw(leaf):
    if leaf.ndim == 1:
      return rng.uniform(low, high, leaf.shape).astype(dtype)
    scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5
    return (scale * rng.standard_normal(leaf.shape)).astype(dtype)

  return jax.tree.map(draw, shapes)


def he_normed(shapes, rng: np.random.Generator, *, bias: float):
  """Draws He-normal kernels, normal biases, and scales and variances above 1.

  Args:
    shapes: Shapes of the variables.
    rng: Random generator.
    bias: Standard deviation of biases and means.
  """

  def draw(path, leaf):
    values = rng.standard_normal(leaf.shape)
    if path[-1].key in ("scale", "var"):
      values = 1 + 0.3 * np.abs(values)
    elif leaf.ndim == 1:
      values *= bias
    else:
      values *= (2 / np.prod(leaf.shape[:-1])) ** 0.5
    return values.astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def lecun_normed(shapes, dtype=np.float32):
  """Draws LeCun-normal kernels, and vectors near the initial values."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key in ("scale", "var"):
      values = rng.uniform(0.5, 1.5, leaf.shape)
    elif leaf.ndim == 1:
      values = rng.normal(0.1, 0.2, leaf.shape)
    else:
      values = rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
    return values.astype(dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)
