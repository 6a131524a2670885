"""FCN: fully convolutional networks (Long, Shelhamer & Darrell 2015).

arXiv:1411.4038, and PAMI 2017 (arXiv:1605.06211). The idea (Fig. 3): treat a
classifier's dense layers as convolutions, score each position of the last map,
and upsample the scores to the size of the image. Skips add the scores of finer
maps, which restore the detail that the coarse map lacks.

| network        | stride | scores added          | cropped at (offsets)     |
|----------------|--------|-----------------------|--------------------------|
| FCN-32s        | 32     |                       | image 19                 |
| FCN-16s        | 16     | pool4                 | pool4 5, image 27        |
| FCN-8s         | 8      | pool4, pool3          | pool4 5, pool3 9, image 31 |
| FCN-8s at once | 8      | 0.01 pool4, 0.0001 pool3 | as FCN-8s             |
| FCN-AlexNet    | 32     |                       | image 18                 |

Layers, names and initial values are those of the released prototxts
(shelhamer/fcn.berkeleyvision.org): the image padded by 100, pools in ceil
mode, zero-initialised scores, upsampling by bilinear transposed convolutions.
The last upsampling is named "upscore" in all networks here. Crop offsets are
computed, not listed; see `backbones/geometry.py`.

Training has stages: FCN-16s is initialised from FCN-32s and FCN-8s from
FCN-16s (Sec. 4.2), by `config.init.model` and `config.init.skip`.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.geometry import Grid, Window, check_image, grids
from jaxseg.errors import UserError, unknown_name
from jaxseg.layers.conv import Conv
from jaxseg.layers.dense_conv import DenseConvHead
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.transposed import (
  ConvTranspose,
  bilinear_conv_transpose,
  bilinear_init,
)
from jaxseg.types import Images, Outputs

LEARNED = ("none", "intermediate", "all")


class FCN(nn.Module):
  """Maps `[n, h, w, c]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: VGG or AlexNet with enough padding for the scores to cover the
      image: 100 pixels with the papers' 7x7 or 6x6 fc6.
    stride: Stride of the finest scores: 32, 16, 8, 4 or 2.
    skip_scales: Fixed factors of the maps that the skips score, deepest first;
      () means 1 for each.
    learned_upsampling: Which transposed convolutions are learned, as dense
      kernels over classes initialised to bilinear: "none" (all released
      networks), "intermediate" (CVPR text, Sec. 4.3) or "all".
    head_features: Features of fc6 and fc7.
    head_kernel_size: Kernel size of fc6.
    dropout_rate: Dropout rate after fc6 and fc7.
    norm: Normalisation that `models.create` passes on to the backbone; the
      head has none.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  stride: int = 32
  skip_scales: tuple[float, ...] = ()
  learned_upsampling: str = "none"
  head_features: int = 4096
  head_kernel_size: int = 7
  dropout_rate: float = 0.5
  norm: Callable[..., Any] = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    size = image.shape[1:3]
    check_image(self.backbone, size, least=self.head_kernel_size)
    grid_of = grids(self.backbone)
    features = self.backbone(image, train=train)
    x = DenseConvHead(
      self.head_features,
      self.head_kernel_size,
      dropout_rate=self.dropout_rate,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="head",
    )(features["c5"], train=train)
    score = self._score(x, "score_fr")
    grid = grid_of["c5"].through(Window(self.head_kernel_size))

    learned = self._learns("intermediate")
    name = "upscore2"
    for level, scale in self._skips():
      skip, skip_grid = features[f"c{level}"], grid_of[f"c{level}"]
      kernel_size, grid = fitting_kernel(grid, skip_grid)
      score = self._upsample(score, kernel_size, 2, learned, name)
      start = int(skip_grid.start_of(grid))
      skip = crop(skip, start, score.shape[1:3])
      score += self._score(scale * skip, f"score_pool{level}")
      name = f"upscore_pool{level}"

    kernel_size, grid = fitting_kernel(grid, Grid())
    learned = self._learns("all")
    score = self._upsample(score, kernel_size, self.stride, learned, "upscore")
    return {"logits": crop(score, int(grid.start_of(Grid())), size)}

  def _skips(self) -> list[tuple[int, float]]:
    """Returns level and factor of each skip, deepest first."""
    count = (32 // self.stride).bit_length() - 1
    scales = self.skip_scales or (1.0,) * count
    if 2**count * self.stride != 32 or len(scales) != count:
      raise UserError(
        f"model.stride={self.stride}, model.skip_scales={self.skip_scales}: "
        "expected a stride of 32, 16, 8, 4 or 2, and either no factors or as "
        "many as there are skips (0, 1, 2, 3 or 4)"
      )
    return [(4 - i, scale) for i, scale in enumerate(scales)]

  def _learns(self, which: str) -> bool:
    """Returns whether the "intermediate" or "all" upsampling is learned."""
    if self.learned_upsampling not in LEARNED:
      raise unknown_name(
        "model.learned_upsampling", self.learned_upsampling, LEARNED
      )
    return LEARNED.index(self.learned_upsampling) >= LEARNED.index(which)

  def _score(self, x: jax.Array, name: str) -> jax.Array:
    """Applies a linear classifier at every position, in float32."""
    score = Conv(
      self.num_classes,
      1,
      kernel_init=nn.initializers.zeros_init(),
      param_dtype=self.param_dtype,
      name=name,
    )(x)
    return score.astype(jnp.float32)

  def _upsample(
    self,
    score: jax.Array,
    kernel_size: int,
    strides: int,
    learned: bool,
    name: str,
  ) -> jax.Array:
    """Applies a bilinear transposed convolution, fixed or learned."""
    if not learned:
      return bilinear_conv_transpose(
        score, kernel_size=kernel_size, strides=strides
      )
    return ConvTranspose(
      self.num_classes,
      kernel_size,
      strides,
      use_bias=False,
      kernel_init=bilinear_init,
      param_dtype=self.param_dtype,
      name=name,
    )(score)


def fitting_kernel(coarse: Grid, fine: Grid) -> tuple[int, Grid]:
  """Chooses the transposed convolution that upsamples `coarse` to `fine`.

  For a factor s the kernel size is 2 s, as in Caffe, or 2 s - 1 if only the
  latter puts outputs on the pixels of `fine`: 63 in FCN-AlexNet.

  Args:
    coarse: Grid of the map to upsample.
    fine: Grid of the map to which the result is added or cropped.

  Returns:
    The kernel size, and the grid of the upsampled map.
  """
  factor = int(fine.scale / coarse.scale)
  for kernel_size in (2 * factor, 2 * factor - 1):
    grid = coarse.upsampled(kernel_size, factor)
    if grid.start_of(fine).denominator == 1:
      break
  return kernel_size, grid


def crop(x: jax.Array, start: int, size: tuple[int, int]) -> jax.Array:
  """Returns rows and columns `start` to `start + size` of `[n, h, w, c]`.

  Raises:
    UserError: `x` does not have all these rows and columns.
  """
  h, w = size
  if start < 0 or start + h > x.shape[1] or start + w > x.shape[2]:
    raise UserError(
      f"fcn: a map of {x.shape[1]}x{x.shape[2]} does not cover {h}x{w} pixels "
      f"from row and column {start}; increase model.backbone.padding (100 in "
      "the papers) or decrease model.head_kernel_size"
    )
  return x[:, start : start + h, start : start + w]


# Fields of the released prototxts.
BACKBONE = {"name": "vgg16", "padding": 100, "ceil_mode": True}
ALEXNET_BACKBONE = {"name": "caffenet", "padding": 100}

fcn_32s = functools.partial(FCN, stride=32)
fcn_16s = functools.partial(FCN, stride=16)
fcn_8s = functools.partial(FCN, stride=8)
fcn_8s_at_once = functools.partial(FCN, stride=8, skip_scales=(0.01, 0.0001))
fcn_alexnet = functools.partial(FCN, stride=32, head_kernel_size=6)
