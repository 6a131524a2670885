"""DeepLab v3+ (Chen et al. 2018, arXiv:1802.02611).

The idea (Fig. 1c and 2): DeepLab v3's pyramid says what is there, early
features say where it ends. The pyramid's 256 features are enlarged to stride
4, joined with c2 reduced to 48 (many more would outweigh them, Table 1), and
two 3x3 convolutions refine both before the last enlargement by four. All 3x3
convolutions of pyramid and decoder are separable (Fig. 3).

Numbers are those of the paper and of the authors' code (research/deeplab):
41,055,413 parameters with aligned Xception-65 and 21 classes. Other backbones
are one field, `backbone="resnet101"` (with the authors' deep stem,
45,812,037), `"mobilenet_v2"`, `"efficientnet_b0"`. The same network as
others write it, by fields:

| field             | here | VainF | segmentation_models_pytorch |
|-------------------|------|-------|-----------------------------|
| separable_aspp    | yes  | no    | yes                         |
| separable_decoder | yes  | no    | yes                         |
| norm_between      | yes  | -     | no                          |
| aspp_conv         | no   | no    | yes                         |
| decoder_convs     | 2    | 1     | 1                           |
| dropout_rate      | 0.1  | 0.1   | 0.5                         |
| align_corners     | yes  | no    | yes                         |
| rates             | 6, 12, 18 | 6, 12, 18 | 12, 24, 36         |
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
  """`[n, h, w, 3]` -> `logits` `[n, h, w, num_classes]`.

  Attributes:
    backbone: gives c5, and c2 at stride 4.
    rates: of the pyramid at output stride 16; at 8 they double.
    features: of pyramid and decoder.
    low_level_features: what c2 is reduced to.
    decoder_convs: 3x3 convolutions after the two are joined.
    separable_aspp: separable 3x3 convolutions in the pyramid.
    separable_decoder: and in the decoder.
    norm_between: those have a norm and a ReLU after their depthwise half.
    aspp_conv: one more of them between the pyramid and its enlargement.
    dropout_rate: of the pyramid.
    align_corners: how maps are resized.
    norm: the default has the authors' decay.
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


# `stem` is the authors' ResNets'; Xception has no such field.
BACKBONE = {"name": "xception65", "output_stride": 16, "stem": "deep"}
