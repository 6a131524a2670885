"""The stride-to-dilation rule of every dilated backbone, in one place.

A stage whose stride would push the feature map past `output_stride` keeps
stride 1 and multiplies the dilation instead (DeepLab, arXiv:1606.00915,
Sec. 3.1; DilatedNet, arXiv:1511.07122). `previous` is the dilation of the
stage before: torchvision's and mmsegmentation's first block of a dilated
stage still uses it (1, 2, 2 and 2, 4, 4); PSPNet's Caffe and semseg networks
dilate every block alike (2, 2, 2 and 4, 4, 4).
"""

import dataclasses

from jaxseg.errors import UserError


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
