"""DeepLab v2 (Chen et al. 2018, arXiv:1606.00915).

The idea (Sec. 3.2, Fig. 4 and 7): atrous spatial pyramid pooling (ASPP).
Parallel 3x3 convolutions of different dilations classify the last features,
each with another field of view of the same pixel. Their scores are added.

- ResNet-101 (the default; 44,048,532 parameters with 21 classes): each branch
  is one 3x3 convolution from 2048 features to the classes, with rates 6, 12,
  18 and 24.
- VGG-16 (`VARIANTS["vgg"]`; 37,877,652 parameters): each branch has its own
  fc6, fc7 and fc8. Rates 6, 12, 18, 24 are the paper's ASPP-L; 2, 4, 8, 12
  its ASPP-S.

MSC (Sec. 4.1.2): the network is applied to the image at 0.5, 0.75 and 1 times
its size, and the logits are the maximum over the three. Each scale also has a
loss of its own (`aux_logits_50`, ..., named in per cent). Layers are those of
the released prototxts: ResNet has its strides in the first 1x1 convolutions
and pools in ceil mode, and ASPP weights are initialised from N(0, 0.01). Score
i belongs to pixel 8 i.
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
  """Sum of classifiers with different dilations (Fig. 7).

  Attributes:
    num_classes: Number of classes.
    rates: Dilation of each branch's 3x3 convolution.
    hidden_features: Features of each branch's fc6 and fc7; 0 omits both, so
      that the 3x3 convolution is the classifier.
    dropout_rate: Dropout rate after fc6 and fc7.
    dtype: Computation dtype of fc6 and fc7.
    param_dtype: Dtype of the parameters.
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
  """Maps `[n, h, w, 3]` to `logits`, and `aux_logits_50` etc. for each scale.

  All outputs are `[n, h, w, num_classes]`. With a single scale there are no
  auxiliary outputs.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone with c5 at output stride 8.
    rates: Dilations of the atrous spatial pyramid.
    hidden_features: Features of each branch's fc6 and fc7 (1024 with VGG); 0
      classifies c5 directly.
    dropout_rate: Dropout rate after fc6 and fc7.
    scales: Factors by which the image is resized; logits are the maximum over
      the scales.
    norm: Normalisation that `models.create` passes on to the backbone; the
      head has none.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
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

    scores = []
    for scale in self.scales:
      size = scaled_size(image.shape[1:3], scale)
      x = resize_bilinear(image, size, align_corners=True)
      x = self.backbone(x, train=train)["c5"]
      scores.append(aspp(x, train=train))
    # All scores at the resolution of the largest scale.
    size = tuple(max(x.shape[axis] for x in scores) for axis in (1, 2))
    scores = [resize_bilinear(x, size, align_corners=True) for x in scores]
    outputs = {"logits": jnp.max(jnp.stack(scores), axis=0)}
    if len(scores) > 1:
      for scale, x in zip(self.scales, scores, strict=True):
        outputs[f"aux_logits_{scale * 100:g}"] = x
    return {
      key: zoom_bilinear(x, OUTPUT_STRIDE, image.shape[1:3])
      for key, x in outputs.items()
    }


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
  """Returns height and width at a scale, corners aligned (Caffe's Interp).

  For example, 321 becomes 241 at 0.75 and 161 at 0.5; pixel i of the resized
  image lies at i / scale of the original.
  """
  return tuple(round((side - 1) * scale) + 1 for side in size)


BACKBONE = {
  "name": "resnet101",
  "output_stride": OUTPUT_STRIDE,
  # Fields of ResNet.
  "stride_in_1x1": True,
  "ceil_mode": True,
  "contract_dilation": False,
  # Fields of VGG, for the variant "vgg".
  "pool_window": 3,
  "dilate_pools": False,
}

_VGG = {
  "backbone": {"name": "vgg16"},
  "hidden_features": 1024,
  "scales": (1.0,),
}
VARIANTS = {
  # ASPP-L on VGG-16.
  "vgg": _VGG,
  # ASPP-S on VGG-16.
  "vgg_aspp_s": {**_VGG, "rates": (2, 4, 8, 12)},
}
