"""PSPNet: pyramid scene parsing (Zhao et al. 2017, arXiv:1612.01105).

The idea (Fig. 3): the last feature map is averaged into 1x1, 2x2, 3x3 and 6x6
bins, so that each pixel is classified in the context of the whole scene.
Numbers are those of the author's PyTorch code (hszhao/semseg,
model/pspnet.py): a deep-stem ResNet at output stride 8 whose blocks of one
stage share a dilation, Dropout2d 0.1, resizing with aligned corners, and an
auxiliary head of 256 features on c4 (loss weight 0.4, Sec. 3.3 and Fig. 4).

`VARIANTS` has the released Caffe networks.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.layers.conv import (
  Conv,
  ConvNormAct,
  torch_uniform,
  torch_uniform_bias,
)
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import adaptive_avg_pool
from jaxseg.layers.resize import resize_bilinear
from jaxseg.types import Images, Outputs


def window_matrix(size: int, window: int) -> np.ndarray:
  """Returns the `[bins, size]` averaging matrix of adjacent windows.

  This is Caffe's average pooling with equal kernel size and stride. The last
  window may be partial; it averages over the pixels inside the map.
  """
  bins = -(-size // window)
  matrix = np.zeros((bins, size), np.float32)
  for i in range(bins):
    stop = min((i + 1) * window, size)
    matrix[i, i * window : stop] = 1.0 / (stop - i * window)
  return matrix


def window_avg_pool(x: jax.Array, window: int) -> jax.Array:
  """Averages `[n, h, w, c]` over square windows, from the top left corner."""
  rows, cols = (
    jnp.asarray(window_matrix(size, window), x.dtype) for size in x.shape[1:3]
  )
  return jnp.einsum(
    "ih,nhwc,jw->nijc", rows, x, cols, precision=jax.lax.Precision.HIGHEST
  )


class PyramidPooling(nn.Module):
  """Concatenates `x` with its pooled, projected and resized pyramid.

  Attributes:
    bins: Bins along each side, for each level of the pyramid.
    conv: Factory of `ConvNormAct`.
    side: Side of the feature map whose bins fix the size of the pooling
      windows (Caffe); 0 pools every map into the same bins.
  """

  bins: tuple[int, ...]
  conv: Callable[..., Any]
  side: int = 0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    levels = [x]
    for b in self.bins:
      if self.side:
        y = window_avg_pool(x, max(self.side // b, 1))
      else:
        y = adaptive_avg_pool(x, b)
      y = self.conv(x.shape[-1] // len(self.bins), 1, name=f"bin{b}")(
        y, train=train
      )
      levels.append(resize_bilinear(y, x.shape[1:3], align_corners=True))
    return jnp.concatenate(levels, axis=-1)


class Head(nn.Module):
  """3x3 convolution, Dropout2d and 1x1 classifier; logits are float32.

  Attributes:
    features: Features of the 3x3 convolution.
    num_classes: Number of classes.
    dropout_rate: Dropout rate before the classifier.
    conv: Factory of `ConvNormAct`.
    channel_dropout: Whether dropout removes whole channels.
  """

  features: int
  num_classes: int
  dropout_rate: float
  conv: Callable[..., Any]
  channel_dropout: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = self.conv(self.features, 3, name="conv")(x, train=train)
    x = nn.Dropout(
      self.dropout_rate,
      broadcast_dims=(1, 2) if self.channel_dropout else (),
      name="dropout",
    )(x, deterministic=not train)
    x = Conv(
      self.num_classes,
      1,
      kernel_init=torch_uniform,
      bias_init=torch_uniform_bias(self.features),
      name="classifier",
    )(x)
    return x.astype(jnp.float32)


class PSPNet(nn.Module):
  """Maps `[n, h, w, 3]` to `logits` and `aux_logits`, `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone with c4 and c5 at output stride 8.
    bins: Bins along each side, for each level of the pyramid.
    head_features: Features before the classifier.
    aux_features: Features of the auxiliary head on c4.
    dropout_rate: Dropout rate of both heads.
    channel_dropout: Whether dropout removes whole channels.
    pool_crop: Side of the training crop whose bins fix the size of the pooling
      windows (Caffe); 0 pools every image into the same bins.
    norm: Factory of the normalisation layers.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  bins: tuple[int, ...] = (1, 2, 3, 6)
  head_features: int = 512
  aux_features: int = 256
  dropout_rate: float = 0.1
  channel_dropout: bool = True
  pool_crop: int = 0
  norm: Callable[..., Any] = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    conv = functools.partial(
      ConvNormAct,
      norm=self.norm,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    head = functools.partial(
      Head,
      num_classes=self.num_classes,
      dropout_rate=self.dropout_rate,
      channel_dropout=self.channel_dropout,
      conv=conv,
    )
    features = self.backbone(image, train=train)
    x = PyramidPooling(self.bins, conv, self._side(), name="pyramid")(
      features["c5"], train=train
    )
    logits = {
      "logits": head(self.head_features, name="head")(x, train=train),
      "aux_logits": head(self.aux_features, name="aux_head")(
        features["c4"], train=train
      ),
    }
    return {
      key: resize_bilinear(value, image.shape[1:3], align_corners=True)
      for key, value in logits.items()
    }

  def _side(self) -> int:
    """Returns the side of c5 for a crop of `pool_crop`; 0 without one."""
    if not self.pool_crop:
      return 0
    return (self.pool_crop - 1) // self.backbone.output_stride + 1


# Fields of the ResNet-50 in semseg.
BACKBONE = {
  "name": "resnet50",
  "output_stride": 8,
  "stem": "deep",
  "contract_dilation": False,
}

VARIANTS = {
  # The released Caffe networks (hszhao/PSPNet). The size of their pooling
  # windows is fixed by the bins of a training crop: 60, 30, 20 and 10 pixels of
  # c5 for 473 (ADE20K, VOC), 90, 45, 30 and 15 for 713 (Cityscapes). A larger
  # image has more bins, a smaller one fewer. The ResNet-50 for ADE20K has its
  # strides in the first 1x1 convolutions; the ResNet-101s have
  # `stride_in_1x1=False`.
  "caffe": {
    "channel_dropout": False,
    "pool_crop": 473,
    "backbone": {"ceil_mode": True, "stride_in_1x1": True},
  },
}
