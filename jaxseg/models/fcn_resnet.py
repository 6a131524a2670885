"""torchvision's FCN-ResNet (models/segmentation/fcn.py).

The idea: a ResNet whose dilated stages keep an eighth of the image's
resolution (arXiv:1606.00915) needs none of FCN's skips. A small head
classifies its last map, and bilinear resizing brings the logits to the size of
the image. The network shares FCN's name but not its layers: the head is a 3x3
convolution to a quarter of the channels, norm, ReLU, dropout 0.1 and a 1x1
classifier. An auxiliary head of the same kind on c4 is trained with loss
weight 0.5 (references/segmentation). `backbone="resnet101"` is the larger of
the two published networks.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.layers.conv import ConvNormAct
from jaxseg.layers.fcn_head import FCNHead
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.resize import resize_bilinear
from jaxseg.types import Images, Outputs


class FCNResNet(nn.Module):
  """Maps `[n, h, w, c]` to `logits` and `aux_logits`, `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone with c4 and c5 at output stride 8.
    dropout_rate: Dropout rate of both heads.
    norm: Factory of the normalisation layers.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
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
      FCNHead,
      self.num_classes,
      self.dropout_rate,
      conv=conv,
      param_dtype=self.param_dtype,
    )
    features = self.backbone(image, train=train)
    logits = {
      "logits": head(name="head")(features["c5"], train=train),
      "aux_logits": head(name="aux_head")(features["c4"], train=train),
    }
    return {
      key: resize_bilinear(value, image.shape[1:3], align_corners=False)
      for key, value in logits.items()
    }


BACKBONE = {"name": "resnet50", "output_stride": 8}
