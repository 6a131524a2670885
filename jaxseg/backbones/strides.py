"""The stride-to-dilation rule of all dilated backbones.

A stage whose stride would exceed `output_stride` has stride 1, and all later
layers multiply their dilation by the removed stride (DeepLab,
arXiv:1606.00915, Sec. 3.1; DilatedNet, arXiv:1511.07122). The layer whose
stride was removed keeps the previous dilation; all later layers use the new
one. Subsampling the dense map then gives exactly the strided one. In
torchvision and mmsegmentation the first block of a dilated stage follows this
rule (dilations 1, 2, 2 and 2, 4, 4). PSPNet's Caffe network and semseg dilate
all blocks of a stage equally (2, 2, 2 and 4, 4, 4).
"""

import dataclasses
import itertools
import operator

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
  """Stride and dilation of a stage.

  Attributes:
    stride: Stride of the stage; 1 if it was removed.
    dilation: Dilation of all layers after the stride.
    previous: Dilation of the stage before, and of the layer with the stride.
  """

  stride: int
  dilation: int
  previous: int


def dilate(strides: tuple[int, ...], output_stride: int) -> tuple[Stage, ...]:
  """Converts nominal strides to stages at `output_stride`.

  Args:
    strides: Nominal strides, the stem's first.
    output_stride: Stride after the last stage.

  Raises:
    UserError: `output_stride` is not the product of the first few strides.
  """
  reached, dilation, stages = 1, 1, []
  for stride in strides:
    previous = dilation
    if reached * stride <= output_stride:
      reached *= stride
      stages.append(Stage(stride, dilation, previous))
    else:
      dilation *= stride
      stages.append(Stage(1, dilation, previous))
  if reached != output_stride:
    possible = sorted(set(itertools.accumulate(strides, operator.mul)))
    raise UserError(
      f"output_stride={output_stride}: expected one of {possible} for this "
      "backbone"
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
  """Applies the max pooling of nominal stride 2 that begins a stage.

  If the stage's stride was removed, taps are `stage.previous` pixels apart, so
  `padding` and the padding of `ceil_mode` are scaled by the same factor.

  Args:
    x: Input `[n, h, w, c]`.
    window: Side of the window.
    stage: Stride and dilation.
    padding: Padding on either side, at stride 2.
    ceil_mode: Whether the last, partial window is kept.
  """
  if stage.stride > 1:
    return max_pool(
      x, window, stage.stride, padding=padding, ceil_mode=ceil_mode
    )
  after = padding + 1 if ceil_mode else padding
  pads = (padding * stage.previous, after * stage.previous)
  return dilated_max_pool(x, window, stage.previous, pads)


def stage_avg_pool(x: jax.Array, window: int, stage: Stage) -> jax.Array:
  """Applies the average pooling of nominal stride 2 that begins a stage.

  If the stage's stride was removed, taps are `stage.previous` pixels apart, and
  the size is kept.

  Args:
    x: Input `[n, h, w, c]`.
    window: Side of the window.
    stage: Stride and dilation.
  """
  if stage.stride > 1:
    return avg_pool(x, window, stage.stride)
  return dilated_avg_pool(x, window, stage.previous)
