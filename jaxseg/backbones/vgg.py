"""VGG (Simonyan & Zisserman 2015, arXiv:1409.1556, Table 1).

The idea: nothing but 3x3 convolutions, in five groups, each followed by a
pooling of stride 2. Networks A, B, D and E of the paper's table have 11, 13,
16 and 19 layers with weights, counting the three dense ones that
`models/classifier.py` adds. The "_bn" variants normalise after each
convolution, which keeps its bias (torchvision, models/vgg.py; its
initialiser too). Levels, by nominal stride:

| level | tensor             | stride | besides, under its own key        |
|-------|--------------------|--------|-----------------------------------|
| c1    | pool1              | 2      | conv1: last of the group, stride 1 |
| c2    | pool2              | 4      | conv2: stride 2                   |
| c3    | pool3              | 8      | conv3: stride 4                   |
| c4    | pool4              | 16     | conv4: stride 8                   |
| c5    | pool5              | 32     | conv5: stride 16                  |

Who builds on it changes fields: FCN pads the image by 100 and pools in ceil
mode (`padding=100, ceil_mode=True`), DeepLab pools over 3x3 and does not
dilate the pooling (`pool_window=3, dilate_pools=False`), DilatedNet pads no
convolution and leaves out the pools that lose their stride
(`padding=0, pad_inner=False, dense_pools=False`).
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
  """A VGG trunk: image `[n, h, w, 3]` -> `{"c1": ..., "c5": ...}`.

  Attributes:
    stage_sizes: convolutions in each of the five groups.
    width: features of the first group; it doubles three times.
    batch_norm: normalise after each convolution.
    padding: of the first convolution.
    pad_inner: the convolutions after it keep the size; without, none pads.
    pool_window: 2, or 3 with a padding of 1.
    ceil_mode: pool the last, partial window too (Caffe).
    output_stride: 32, 16, 8, 4 or 2; later pools keep the size, and the
      convolutions after them are dilated.
    dense_pools: a pool that loses its stride stays, over a map it does not
      shrink; without, it is left out.
    dilate_pools: a dense pool behind another is dilated as well, without
      which it is not what the strided one computes.
    dropout_stages: those whose pool is followed by dropout (Bayesian SegNet).
    dropout_rate: there.
    norm: used where `batch_norm` is set.
    kernel_init: torchvision's, He's by the fan out.
  """

  stage_sizes: tuple[int, ...]
  width: int = 64
  batch_norm: bool = False
  padding: int = 1
  pad_inner: bool = True
  pool_window: int = 2
  ceil_mode: bool = False
  output_stride: int = 32
  dense_pools: bool = True
  dilate_pools: bool = True
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
    inner = None if self.pad_inner else ((0, 0), (0, 0))
    if len(self.stage_sizes) != 5:
      raise UserError(
        f"VGG: stage_sizes={self.stage_sizes}; expected five numbers, one for "
        "each group of convolutions, such as (2, 2, 3, 3, 3)"
      )
    features = {}
    x = image
    stages = dilate((2, 2, 2, 2, 2), self.output_stride)
    for s, (size, stage) in enumerate(
      zip(self.stage_sizes, stages, strict=True), start=1
    ):
      for b in range(1, size + 1):
        first = s == b == 1
        x = conv(
          min(2 ** (s - 1), 8) * self.width,
          # The group's pool comes last: its convolutions precede the stride.
          dilation=stage.previous,
          padding=((self.padding,) * 2,) * 2 if first else inner,
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
    """Strided, or of equal size where the stride became dilation."""
    ceil_mode = self.ceil_mode
    if stage.stride == 1:
      if not self.dense_pools:
        return x
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
      "output_stride=32 and pool_window=2, such as "
      "--config.model.backbone.name=vgg16_bn"
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
