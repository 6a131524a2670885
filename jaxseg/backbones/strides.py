"""The stride-to-dilation rule of every dilated backbone, in one place.

A stage whose stride would push the feature map past `output_stride` keeps
stride 1 and multiplies the dilation instead (DeepLab, arXiv:1606.00915,
Sec. 3.1; DilatedNet, arXiv:1511.07122). `previous` is the dilation of the
stage before: the layer that lost its stride still has it, the layers behind
it have the new one, and the dense map, subsampled, is then exactly the
strided one. torchvision's and mmsegmentation's first block of a dilated stage
follows that (1, 2, 2 and 2, 4, 4); PSPNet's Caffe and semseg networks dilate
every block alike (2, 2, 2 and 4, 4, 4).
"""

import dataclasses

import jax

from jaxseg.errors import UserError
from jaxseg.layers.pool import (
  avg_pool,
  dilated_avg_pool,
  dilated_max_pool,
  max_pool,
)


@dataclasses.dataclass(frozen=True)
class Stage:
  """How one stage is run: its stride, its dilation, and the one before."""

  stride: int
  dilation: int
  previous: int


def dilate(strides: tuple[int, ...], output_stride: int) -> tuple[Stage, ...]:
  """Turns nominal `strides` (the stem first) into stages at `output_stride`.

  Raises:
    UserError: `output_stride` is not the product of the first few strides.
  """
  reached, dilation, stages, possible = 1, 1, [], []
  for stride in strides:
    previous = dilation
    if reached * stride <= output_stride:
      reached *= stride
      stages.append(Stage(stride, dilation, previous))
    else:
      dilation *= stride
      stages.append(Stage(1, dilation, previous))
    possible.append(stride * (possible[-1] if possible else 1))
  if reached != output_stride:
    raise UserError(
      f"output_stride={output_stride}: this backbone can have "
      f"{sorted(set(possible))}"
    )
  return tuple(stages)


def stage_max_pool(
  x: jax.Array,
  window: int,
  stage: Stage,
  *,
  padding: int = 0,
  ceil_mode: bool = False,
) -> jax.Array:
  """The max pooling of nominal stride 2 that opens a stage.

  Where the stage lost its stride the taps lie `stage.previous` apart, and so
  many pixels count for one of `padding`, and of what `ceil_mode` adds.
  """
  if stage.stride > 1:
    return max_pool(
      x, window, stage.stride, padding=padding, ceil_mode=ceil_mode
    )
  pads = (padding * stage.previous, (padding + ceil_mode) * stage.previous)
  return dilated_max_pool(x, window, stage.previous, pads)


def stage_avg_pool(x: jax.Array, window: int, stage: Stage) -> jax.Array:
  """The same for average pooling; where it is dense, the size is kept."""
  if stage.stride > 1:
    return avg_pool(x, window, stage.stride)
  return dilated_avg_pool(x, window, stage.previous)
