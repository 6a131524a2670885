"""PSPNet: pyramid scene parsing (Zhao et al. 2017, arXiv:1612.01105).

The idea (Fig. 3): average the last feature map into 1x1, 2x2, 3x3 and 6x6
bins, so that each pixel is classified with the scene around it in view.
Numbers are those of the author's PyTorch code (hszhao/semseg,
model/pspnet.py): a deep-stem ResNet at output stride 8 that dilates every
block alike, Dropout2d 0.1, align_corners resizing, and an auxiliary head of
256 features on c4 (loss weight 0.4, Sec. 3.3 and Fig. 4).
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.layers.conv import Conv, ConvNormAct
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import adaptive_avg_pool
from jaxseg.layers.resize import resize_bilinear
from jaxseg.types import Images, Outputs


class PyramidPooling(nn.Module):
  """Concatenates `x` with its pooled, projected and resized pyramid."""

  bins: tuple[int, ...]
  conv: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    levels = [x]
    for b in self.bins:
      y = adaptive_avg_pool(x, b)
      y = self.conv(x.shape[-1] // len(self.bins), 1, name=f"bin{b}")(
        y, train=train
      )
      levels.append(resize_bilinear(y, x.shape[1:3], align_corners=True))
    return jnp.concatenate(levels, axis=-1)


class Head(nn.Module):
  """3x3 convolution, Dropout2d, 1x1 classifier; logits in float32."""

  features: int
  num_classes: int
  dropout_rate: float
  conv: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = self.conv(self.features, 3, name="conv")(x, train=train)
    # Dropout2d: whole channels fall out.
    x = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2), name="dropout")(
      x, deterministic=not train
    )
    x = Conv(self.num_classes, 1, name="classifier")(x)
    return x.astype(jnp.float32)


class PSPNet(nn.Module):
  """`[n, h, w, 3]` -> `logits`, `aux_logits`, each `[n, h, w, num_classes]`.

  Attributes:
    backbone: gives c4 and c5 at output stride 8.
    bins: sides of the pooling pyramid.
    head_features: features before the classifier.
    aux_features: features of the auxiliary head on c4.
  """

  num_classes: int
  backbone: nn.Module
  bins: tuple[int, ...] = (1, 2, 3, 6)
  head_features: int = 512
  aux_features: int = 256
  dropout_rate: float = 0.1
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
      conv=conv,
    )
    features = self.backbone(image, train=train)
    x = PyramidPooling(self.bins, conv=conv, name="pyramid")(
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


# What semseg's backbone is; a config's own fields override them.
BACKBONE = {
  "name": "resnet50",
  "output_stride": 8,
  "stem": "deep",
  "contract_dilation": False,
}
