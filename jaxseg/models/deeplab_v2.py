"""DeepLab v2 (Chen et al. 2018, arXiv:1606.00915).

The idea (Sec. 3.2, Fig. 4 and 7): atrous spatial pyramid pooling. The last
features are classified by several parallel 3x3 convolutions of different
rates, each looking at the same pixel with another field of view, and their
scores are added.

- ResNet-101 (the default; 44,048,532 parameters at 21 classes): each branch
  is one 3x3 convolution, 2048 features to the classes, rates 6, 12, 18, 24.
- VGG-16 (`backbone="vgg16", hidden_features=1024, scales=(1.0,)`; 37,877,652):
  each branch has an fc6, fc7 and fc8 of its own. Rates 6, 12, 18, 24 are
  ASPP-L, 2, 4, 8, 12 ASPP-S.

MSC (Sec. 4.1.2): the network sees the image at 0.5, 0.75 and 1 times its
size, and of the three scores of a pixel and class the largest counts. Each
scale has its own loss besides (`aux_logits_50`, ..., in per cent). Layer
lists are those of the released prototxts: ResNet strides in its first 1x1
convolutions and pools in ceil mode, ASPP weights are N(0, 0.01). Score i
belongs to pixel 8 i.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.layers.conv import Conv
from jaxseg.layers.dense_conv import DenseConvHead
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.resize import resize_bilinear, zoom_bilinear
from jaxseg.types import Images, Outputs

OUTPUT_STRIDE = 8
SCORE_INIT = nn.initializers.normal(0.01)


class AtrousPyramid(nn.Module):
  """The sum of classifiers that look with different rates (Fig. 7).

  Attributes:
    rates: dilation of each branch's 3x3 convolution.
    hidden_features: of a branch's fc6 and fc7; 0 classifies at once.
    dropout_rate: after fc6 and fc7.
  """

  num_classes: int
  rates: tuple[int, ...]
  hidden_features: int = 0
  dropout_rate: float = 0.5
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    score = {"kernel_init": SCORE_INIT, "param_dtype": self.param_dtype}
    total = 0
    for rate in self.rates:
      if self.hidden_features:
        y = DenseConvHead(
          self.hidden_features,
          3,
          rate,
          padding=None,
          dropout_rate=self.dropout_rate,
          name=f"rate{rate}",
          **types,
        )(x, train=train)
        y = Conv(self.num_classes, 1, name=f"rate{rate}_fc8", **score)(y)
      else:
        y = Conv(
          self.num_classes, 3, dilation=rate, name=f"rate{rate}", **score
        )(x)
      total = total + y.astype(jnp.float32)
    return total


class DeepLabV2(nn.Module):
  """`[n, h, w, 3]` -> `logits`, and `aux_logits_50` for the scale 0.5, ...

  Attributes:
    backbone: gives c5 at output stride 8.
    rates: of the atrous spatial pyramid.
    hidden_features: of a branch's fc6 and fc7 (VGG: 1024); 0 classifies c5.
    dropout_rate: in branches that have them.
    scales: of the image; of their scores the largest counts. One scale has
      no auxiliary outputs.
    norm: of the backbone, if it normalises.
  """

  num_classes: int
  backbone: nn.Module
  rates: tuple[int, ...] = (6, 12, 18, 24)
  hidden_features: int = 0
  dropout_rate: float = 0.5
  scales: tuple[float, ...] = (0.5, 0.75, 1.0)
  norm: Callable[..., Any] = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    aspp = AtrousPyramid(
      self.num_classes,
      self.rates,
      self.hidden_features,
      self.dropout_rate,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="aspp",
    )

    def scores(scale: float) -> jax.Array:
      x = resize_bilinear(
        image, scaled_size(image.shape[1:3], scale), align_corners=True
      )
      return aspp(self.backbone(x, train=train)["c5"], train=train)

    each = {scale: scores(scale) for scale in self.scales}
    grid = tuple(max(x.shape[axis] for x in each.values()) for axis in (1, 2))
    each = {
      scale: resize_bilinear(x, grid, align_corners=True)
      for scale, x in each.items()
    }
    largest = jnp.max(jnp.stack(list(each.values())), axis=0)
    outputs = {"logits": largest}
    if len(each) > 1:
      outputs |= {f"aux_logits_{scale * 100:g}": x for scale, x in each.items()}
    return {
      key: zoom_bilinear(x, OUTPUT_STRIDE, image.shape[1:3])
      for key, x in outputs.items()
    }


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
  """Height and width at a scale, corners on corners (Caffe's Interp layer).

  321 becomes 241 at 0.75 and 161 at 0.5, so that pixel i lies on i / scale.
  """
  return tuple(round((side - 1) * scale) + 1 for side in size)


BACKBONE = {
  "name": "resnet101",
  "output_stride": OUTPUT_STRIDE,
  # ResNet
  "stride_in_1x1": True,
  "ceil_mode": True,
  "contract_dilation": False,
  # VGG
  "pool_window": 3,
  "dilate_pools": False,
}
