"""The receptive field of a unit, measured with its gradient.

The method follows Luo et al. 2016 (arXiv:1701.04128, Sec. 2): set the
gradient of one unit of a map to one and find the pixels it reaches. All
kernels are drawn positive, so that no ReLU closes and no terms cancel. A max
pooling passes the gradient to its winners only, so the pixels of several
random draws are united.
"""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import UserError


class ReceptiveField(NamedTuple):
  """Receptive field of the units of a map, in pixels of the image.

  Attributes:
    size: Height and width of the field of one unit.
    stride: Rows and columns between the fields of neighbouring units.
  """

  size: tuple[int, int]
  stride: tuple[int, int]


def measure_receptive_field(
  model: nn.Module,
  size: tuple[int, int],
  *,
  layer: str | None = None,
  read: Callable[[Any], jax.Array] = lambda output: output,
  draws: int = 6,
  channels: int = 3,
) -> ReceptiveField:
  """Measures the receptive field of the unit in the middle of a map.

  A narrow network has the field of the wide one and takes less time.

  Args:
    model: Network, backbone or layer, called as `model(image, train=False)`.
    size: Height and width of the image. It has to exceed the field by some
      strides, so that the measured unit sees no border.
    layer: Path of the submodule to measure, for example "backbone" or
      "head/fc7"; None measures `model` itself.
    read: Function from the output of that module to the map `[n, h, w, c]`.
    draws: Number of random images and kernels.
    channels: Number of channels of the image.

  Returns:
    The size of the field and its stride.

  Raises:
    UserError: The image is too small for the map or for the field, or no
      pixel has a gradient.
  """
  run = functools.partial(_run, model, layer, read)
  image = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
  init = functools.partial(model.init, train=False)
  variables = jax.eval_shape(init, jax.random.key(0), image)
  height, width = jax.eval_shape(run, variables, image).shape[1:3]
  if min(height, width) < 2:
    raise UserError(
      f"receptive field: the map has {height}x{width} units for a"
      f" {size[0]}x{size[1]} image; expected two or more each way: measure on"
      " a larger image"
    )
  unit = (height - 1) // 2, (width - 1) // 2

  @jax.jit
  def reached(variables, image):
    """Returns the pixels that the unit and its diagonal neighbour depend on."""
    y, pull = jax.vjp(functools.partial(run, variables), image)

    def pixels(row, column):
      one = jnp.zeros_like(y).at[:, row, column].set(1.0)
      return jnp.any(pull(one)[0] != 0, axis=(0, 3))

    return pixels(*unit), pixels(unit[0] + 1, unit[1] + 1)

  seen = np.zeros((2, *size), bool)
  for draw in range(draws):
    rng = np.random.default_rng(draw)
    noise = rng.exponential(size=image.shape).astype(np.float32)
    seen |= np.stack(reached(_positive(variables, rng), noise))
  (top, bottom), (left, right) = _extent(seen[0], size)
  (next_top, _), (next_left, _) = _extent(seen[1], size)
  return ReceptiveField(
    size=(bottom - top, right - left),
    stride=(next_top - top, next_left - left),
  )


def _run(model, layer, read, variables, image) -> jax.Array:
  """Applies `model` and returns the map of `layer`."""
  if layer is None:
    return read(model.apply(variables, image, train=False))
  _, state = model.apply(
    variables,
    image,
    train=False,
    mutable=["intermediates"],
    capture_intermediates=lambda module, _: "/".join(module.path) == layer,
  )
  output = state["intermediates"]
  for name in layer.split("/"):
    output = output[name]
  return read(output["__call__"][0])


def _positive(variables, rng: np.random.Generator):
  """Draws positive kernels of unit gain; scales and variances are one.

  Kernels have few large values. Near averages would make all channels alike,
  and the maxima of all channels would fall on the same pixels.
  """

  def draw(path, leaf):
    if leaf.ndim > 1:
      # The fourth power of an exponential variable has the mean 24.
      values = rng.exponential(size=leaf.shape) ** 4
      values /= 24 * math.prod(leaf.shape[:-1])
    else:
      values = np.full(leaf.shape, path[-1].key in ("scale", "var"))
    return jnp.asarray(values, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, variables)


def _extent(
  mask: np.ndarray, size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
  """Returns ((first row, end row), (first column, end column)) of a mask."""
  if not mask.any():
    raise UserError(
      "receptive field: no pixel has a gradient at the measured unit; expected"
      " a map that depends on the image through positive kernels"
    )
  extents = []
  for axis, side in enumerate(size):
    places = np.flatnonzero(mask.any(1 - axis))
    first, end = int(places[0]), int(places[-1]) + 1
    if first == 0 or end == side:
      raise UserError(
        f"receptive field: the field reaches the border of a"
        f" {size[0]}x{size[1]} image; measure on a larger one"
      )
    extents.append((first, end))
  return extents[0], extents[1]
