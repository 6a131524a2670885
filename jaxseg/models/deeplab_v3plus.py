"""DeepLab v3+ (Chen et al. 2018, arXiv:1802.02611).

The idea (Fig. 1c and 2): DeepLab v3's pyramid recognises objects, and early
features locate their borders. The 256 features of the pyramid are upsampled to
stride 4 and concatenated with c2, which is reduced to 48 features (many more
would outweigh the pyramid, Table 1). Two 3x3 convolutions refine the result
before it is upsampled by four. All 3x3 convolutions of pyramid and decoder are
separable (Fig. 3).

Numbers are those of the paper and of the authors' code (research/deeplab):
41,055,413 parameters with aligned Xception-65 and 21 classes. Another backbone
is one field: `backbone="resnet101"` (45,812,037 parameters with the authors'
deep stem), `"mobilenet_v2"` or `"efficientnet_b0"`. VainF's network and that of
segmentation_models_pytorch differ in the fields that `vainf.py` and `smp.py` in
`weights/segmentation` list.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.layers.atrous_pyramid import (
  AtrousSpatialPyramid,
  SeparableConvNormAct,
  scaled_rates,
)
from jaxseg.layers.conv import Conv, ConvNormAct
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.resize import resize_bilinear
from jaxseg.types import Images, Outputs

SCORE_INIT = nn.initializers.truncated_normal(0.01)


class DeepLabV3Plus(nn.Module):
  """Maps `[n, h, w, 3]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone with c5, and c2 at stride 4.
    rates: Atrous rates of the pyramid at output stride 16; they double at 8.
    features: Features of pyramid and decoder.
    low_level_features: Features to which c2 is reduced.
    decoder_convs: Number of 3x3 convolutions after the concatenation.
    separable_aspp: Whether the 3x3 convolutions of the pyramid are separable.
    separable_decoder: Whether the 3x3 convolutions of the decoder are
      separable.
    norm_between: Whether a norm and a ReLU follow the depthwise half of a
      separable convolution.
    aspp_conv: Whether a 3x3 convolution follows the pyramid before it is
      upsampled.
    dropout_rate: Dropout rate after the pyramid.
    align_corners: Whether maps are resized with aligned corners.
    norm: Factory of the normalisation layers; the default has the authors'
      decay.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  rates: tuple[int, ...] = (6, 12, 18)
  features: int = 256
  low_level_features: int = 48
  decoder_convs: int = 2
  separable_aspp: bool = True
  separable_decoder: bool = True
  norm_between: bool = True
  aspp_conv: bool = False
  dropout_rate: float = 0.1
  align_corners: bool = True
  norm: Callable[..., Any] = functools.partial(BatchNorm, momentum=0.9997)
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
    separable = functools.partial(
      SeparableConvNormAct, norm_between=self.norm_between, conv=conv
    )
    decode = separable if self.separable_decoder else conv
    resize = functools.partial(
      resize_bilinear, align_corners=self.align_corners
    )
    features = self.backbone(image, train=train)
    x = AtrousSpatialPyramid(
      scaled_rates(self.rates, self.backbone),
      self.features,
      self.dropout_rate,
      conv=conv,
      spatial=separable if self.separable_aspp else conv,
      name="aspp",
    )(features["c5"], train=train)
    if self.aspp_conv:
      x = decode(self.features, name="aspp_conv")(x, train=train)
    low = conv(self.low_level_features, 1, name="low_level")(
      features["c2"], train=train
    )
    x = jnp.concatenate([resize(x, low.shape[1:3]), low], axis=-1)
    for i in range(1, self.decoder_convs + 1):
      x = decode(self.features, name=f"decoder{i}")(x, train=train)
    x = Conv(
      self.num_classes,
      1,
      kernel_init=SCORE_INIT,
      param_dtype=self.param_dtype,
      name="classifier",
    )(x)
    return {"logits": resize(x.astype(jnp.float32), image.shape[1:3])}


# `stem` applies to ResNets, which have the authors' deep stem here.
BACKBONE = {"name": "xception65", "output_stride": 16, "stem": "deep"}
