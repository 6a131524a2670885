"""The receptive field of a unit, measured: where its gradient is not zero.

The idea (Luo et al. 2016, arXiv:1701.04128, Sec. 2): set the gradient to one
at one unit of a map and see which pixels it reaches. All kernels are positive
here, so that no ReLU closes and nothing cancels; a max pooling lets only its
winners through, so the pixels of several random draws are united.
"""

from collections.abc import Callable
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def measure(
  module: nn.Module,
  side: int,
  *,
  layer: str | None = None,
  read: Callable[[jax.Array], jax.Array] = lambda outputs: outputs,
  draws: int = 6,
  channels: int = 3,
) -> tuple[int, int]:
  """Side of a unit's receptive field, and the stride of its map, in pixels.

  Args:
    module: a network, backbone or layer, called with `train=False`; a narrow
      one has the field of the wide one.
    side: of the square image, larger than the field by some strides, so that
      the unit in the middle sees no border.
    layer: path of the submodule to measure, "backbone" or "head/fc7"; None is
      `module` itself.
    read: takes the map `[n, h, w, c]` out of what the layer returned.
    draws: of images and kernels.
    channels: of the image.
  """

  def run(variables, image):
    outputs, state = module.apply(
      variables,
      image,
      train=False,
      mutable=["intermediates"],
      capture_intermediates=layer is not None
      and (lambda m, _: "/".join(m.path) == layer),
    )
    if layer is not None:
      outputs = state["intermediates"]
      for name in layer.split("/"):
        outputs = outputs[name]
      (outputs,) = outputs["__call__"]
    return read(outputs)

  @jax.jit
  def reached(variables, image, first):
    """Pixels that the unit (first, first), and the next, have a gradient at."""
    y, pull = jax.vjp(functools.partial(run, variables), image)

    def from_unit(unit):
      one = jnp.zeros_like(y).at[:, unit, unit].set(1.0)
      return jnp.any(pull(one)[0] != 0, axis=(0, 3))

    return from_unit(first), from_unit(first + 1)

  shape = (1, side, side, channels)
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros(shape), train=False)
  )
  size = jax.eval_shape(run, variables, jnp.zeros(shape)).shape[1:3]
  seen = False
  for draw in range(draws):
    rng = np.random.default_rng(draw)
    image = rng.exponential(size=shape).astype(np.float32)
    masks = reached(_positive(variables, rng), image, (min(size) - 1) // 2)
    seen = seen | np.stack(masks)
  (top, left, height, width), (below, right, *_) = map(_box, seen)
  assert height == width, (height, width)
  assert below - top == right - left
  assert top > 0 < left and max(top + height, left + width) < side, (
    "the field reaches the border of the image; measure with a larger side"
  )
  return height, below - top


def _positive(variables, rng):
  """Kernels that average, roughly; norms and biases as they begin."""

  def draw(path, leaf):
    if leaf.ndim > 1:
      # Few large ones: near averages would make all channels alike, and
      # all their maxima fall on the same pixels.
      values = rng.exponential(size=leaf.shape) ** 4
      values /= 24 * math.prod(leaf.shape[:-1])
    else:
      values = np.full(leaf.shape, path[-1].key in ("scale", "var"))
    return jnp.asarray(values, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, variables)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
  """(first row, first column, height, width) of what is set."""
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  return (
    int(rows[0]),
    int(columns[0]),
    int(rows[-1] - rows[0] + 1),
    int(columns[-1] - columns[0] + 1),
  )
