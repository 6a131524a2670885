"""VGG (Simonyan & Zisserman 2015, arXiv:1409.1556, Table 1).

The idea: 3x3 convolutions only, in five groups, each followed by a pooling of
stride 2. Networks A, B, D and E of the paper's table have 11, 13, 16 and 19
layers with weights, including the three dense layers of
`models/classifier.py`. The "_bn" networks normalise after each convolution,
which keeps its bias (torchvision, models/vgg.py, whose initialiser is the
default). Levels, by nominal stride:

| level | tensor             | stride | also returned, before the pool     |
|-------|--------------------|--------|------------------------------------|
| c1    | pool1              | 2      | conv1 (stride 1)                   |
| c2    | pool2              | 4      | conv2 (stride 2)                   |
| c3    | pool3              | 8      | conv3 (stride 4)                   |
| c4    | pool4              | 16     | conv4 (stride 8)                   |
| c5    | pool5              | 32     | conv5 (stride 16)                  |

Segmentation networks change some fields:
- FCN pads the image by 100 and pools in ceil mode: `padding=100,
  ceil_mode=True`.
- DeepLab pools over 3x3 windows and does not dilate pools: `pool_window=3,
  dilate_pools=False`.
- DilatedNet pads no convolution and omits pools of removed stride:
  `padding=0, pad_inner=False, dense_pools=False`.
- Bayesian SegNet has dropout after its deepest pools: `dropout_stages=(3, 4,
  5)`.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.strides import Stage, dilate, stage_max_pool
from jaxseg.errors import UserError
from jaxseg.layers.conv import ConvNormAct, kaiming_fan_out
from jaxseg.layers.norm import BatchNorm
from jaxseg.types import Activation, Features, Images


class VGG(nn.Module):
  """A VGG trunk: image `[n, h, w, 3]` to `{"c1": ..., "c5": ...}`.

  Attributes:
    stage_sizes: Number of convolutions in each of the five groups.
    width: Features of the first group, which double three times.
    batch_norm: Whether a norm follows each convolution.
    output_stride: Stride of c5: 32, 16, 8, 4 or 2. Later pools keep the size,
      and the convolutions after them are dilated.
    padding: Padding of the first convolution (FCN: 100).
    pool_window: Window of the pools: 2, or 3 with a padding of 1 (DeepLab).
    ceil_mode: Whether pools keep the last, partial window (Caffe).
    dilate_pools: Whether a pool of stride 1 after another such pool is dilated,
      so that subsampling its output gives the strided map (DeepLab: False).
    pad_inner: Whether convolutions after the first are padded to keep the size
      (DilatedNet: False).
    dense_pools: Whether pools of removed stride remain, with stride 1
      (DilatedNet: False).
    dropout_stages: Stages whose pool is followed by dropout (Bayesian SegNet).
    dropout_rate: Dropout rate after the pools of `dropout_stages`.
    norm: Factory of the normalisation layers if `batch_norm` is set.
    act: Activation.
    kernel_init: Initialiser of the kernels; torchvision's by default (He,
      fan-out).
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  stage_sizes: tuple[int, ...]
  width: int = 64
  batch_norm: bool = False
  output_stride: int = 32
  # Fields that segmentation networks change.
  padding: int = 1
  pool_window: int = 2
  ceil_mode: bool = False
  dilate_pools: bool = True
  pad_inner: bool = True
  dense_pools: bool = True
  dropout_stages: tuple[int, ...] = ()
  dropout_rate: float = 0.5
  norm: Callable[..., Any] = BatchNorm
  act: Activation = nn.relu
  kernel_init: Callable[..., Any] = kaiming_fan_out
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Features:
    conv = functools.partial(
      ConvNormAct,
      use_bias=True,
      norm=self.norm if self.batch_norm else None,
      act=self.act,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    if len(self.stage_sizes) != 5:
      raise UserError(
        f"model.backbone.stage_sizes={self.stage_sizes}: expected five numbers "
        "for VGG, one per group of convolutions, such as (2, 2, 3, 3, 3)"
      )
    first_padding = ((self.padding, self.padding), (self.padding, self.padding))
    padding = None if self.pad_inner else ((0, 0), (0, 0))
    features = {}
    x = image
    stages = dilate((2, 2, 2, 2, 2), self.output_stride)
    for s, (size, stage) in enumerate(
      zip(self.stage_sizes, stages, strict=True), start=1
    ):
      for b in range(1, size + 1):
        x = conv(
          min(2 ** (s - 1), 8) * self.width,
          # The pool with the group's stride comes after the convolutions.
          dilation=stage.previous,
          padding=first_padding if s == b == 1 else padding,
          name=f"conv{s}_{b}",
        )(x, train=train)
      features[f"conv{s}"] = x
      x = self._pool(x, stage)
      if s in self.dropout_stages:
        x = nn.Dropout(self.dropout_rate, name=f"dropout{s}")(
          x, deterministic=not train
        )
      features[f"c{s}"] = x
    return features

  def _pool(self, x: jax.Array, stage: Stage) -> jax.Array:
    """Pools with stride 2, or with stride 1 if the stage is dilated."""
    ceil_mode = self.ceil_mode
    if stage.stride == 1:
      if not self.dense_pools:
        return x
      # A window of 2 keeps the size only with padding at the end.
      ceil_mode = self.pool_window == 2
      if not self.dilate_pools:
        stage = dataclasses.replace(stage, previous=1)
    padding = (self.pool_window - 1) // 2
    return stage_max_pool(
      x, self.pool_window, stage, padding=padding, ceil_mode=ceil_mode
    )


def require_pooling_vgg(backbone: nn.Module) -> None:
  """Raises an error unless a decoder can unpool by the backbone's maxima.

  Raises:
    UserError: `backbone` is not a VGG with five 2x2 max poolings of stride 2.
  """
  if (
    not isinstance(backbone, VGG)
    or backbone.output_stride != 32
    or backbone.pool_window != 2
  ):
    raise UserError(
      f"model.backbone is a {type(backbone).__name__} without the 2x2 max "
      "poolings whose indices the decoder needs; expected a VGG with "
      "output_stride=32 and pool_window=2, chosen by a word after the colon, "
      "as in --config=configs/segnet.py:camvid,vgg16_bn"
    )


_SIZES = {
  "vgg11": (1, 1, 2, 2, 2),
  "vgg13": (2, 2, 2, 2, 2),
  "vgg16": (2, 2, 3, 3, 3),
  "vgg19": (2, 2, 4, 4, 4),
}
VGGS = {
  **{
    name: functools.partial(VGG, stage_sizes=sizes)
    for name, sizes in _SIZES.items()
  },
  **{
    f"{name}_bn": functools.partial(VGG, stage_sizes=sizes, batch_norm=True)
    for name, sizes in _SIZES.items()
  },
}
