"""Variables drawn in NumPy, of the shapes of a network's own.

Nothing is left at the zeros and ones where `init` begins, which hide what is
mixed up; and no unit is left without a signal.
"""

import jax
import numpy as np


def he_positive(shapes, dtype=np.float32, *, low=0.0, high=0.1, seed=0):
  """He-normal kernels; all vectors uniform between these two."""
  rng = np.random.default_rng(seed)

  def draw(leaf):
    if leaf.ndim == 1:
      return rng.uniform(low, high, leaf.shape).astype(dtype)
    scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5
    return (scale * rng.standard_normal(leaf.shape)).astype(dtype)

  return jax.tree.map(draw, shapes)


def he_normed(shapes, rng: np.random.Generator, *, bias: float):
  """He-normal kernels, biases of this spread; scales and variances above 1."""

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
  """LeCun-normal kernels, biases around 0.1; scales and variances around 1."""
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
