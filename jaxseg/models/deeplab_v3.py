"""DeepLab v3 (Chen et al. 2017, arXiv:1706.05587).

The idea (Sec. 3): the network keeps an output stride of 16 or 8 and enlarges
its field of view by atrous convolution. The paper's network (Fig. 5;
58,040,661 parameters with ResNet-101 and 21 classes) is a pyramid of atrous
rates with the mean of the whole image, on a ResNet whose last stage has the
dilations 2, 4 and 8 (2 times the multi-grid rates 1, 2 and 4).

The first stage of training has output stride 16. The second stage and
evaluation have output stride 8, where the same weights have twice the
dilations.

Dropout 0.1, resizing with aligned corners and the N(0, 0.01) initialiser of
the scores are those of the authors' TensorFlow code (research/deeplab).

`VARIANTS` has the paper's cascade and torchvision's network.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.resnet import Bottleneck
from jaxseg.errors import UserError, unknown_name
from jaxseg.layers.atrous_pyramid import AtrousSpatialPyramid, scaled_rates
from jaxseg.layers.conv import (
  Conv,
  ConvNormAct,
  kaiming_fan_out,
  torch_uniform,
  torch_uniform_bias,
)
from jaxseg.layers.fcn_head import FCNHead
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.resize import resize_bilinear
from jaxseg.types import Images, Outputs

SCORE_INIT = nn.initializers.truncated_normal(0.01)
INITIALISERS = ("paper", "torchvision")


class DeepLabV3(nn.Module):
  """Maps `[n, h, w, 3]` to `logits`, and `aux_logits` with an auxiliary head.

  All outputs are `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone with c5, and c4 for the auxiliary head.
    rates: Atrous rates of the pyramid at output stride 16; they double at 8.
    features: Features of the pyramid.
    dropout_rate: Dropout rate after the pyramid.
    cascade_blocks: Number of copies of the last stage that replace the
      pyramid; 0 keeps the pyramid.
    final_conv: Whether a 3x3 convolution precedes the classifier.
    auxiliary: Whether FCN's head predicts `aux_logits` from c4.
    align_corners: Whether logits are resized with aligned corners.
    initialiser: "paper" (He's rule by the fan-out for convolutions, N(0, 0.01)
      for the classifier, as in the authors' code) or "torchvision" (PyTorch's
      default for both).
    norm: Factory of the normalisation layers.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  rates: tuple[int, ...] = (6, 12, 18)
  features: int = 256
  dropout_rate: float = 0.1
  cascade_blocks: int = 0
  final_conv: bool = False
  auxiliary: bool = False
  align_corners: bool = True
  initialiser: str = "paper"
  norm: Callable[..., Any] = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    conv = functools.partial(
      ConvNormAct,
      norm=self.norm,
      kernel_init=self._kernel_init(),
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    if self.cascade_blocks:
      self._check_cascade()
    features = self.backbone(image, train=train)
    context = self._cascade if self.cascade_blocks else self._pyramid
    x = context(conv)(features["c5"], train=train)
    if self.final_conv:
      x = conv(self.features, 3, name="conv")(x, train=train)
    logits = {"logits": self._classifier(x.shape[-1])(x).astype(jnp.float32)}
    if self.auxiliary:
      logits["aux_logits"] = FCNHead(
        self.num_classes,
        0.1,
        conv=conv,
        param_dtype=self.param_dtype,
        name="aux_head",
      )(features["c4"], train=train)
    return {
      key: resize_bilinear(
        value, image.shape[1:3], align_corners=self.align_corners
      )
      for key, value in logits.items()
    }

  def _check_cascade(self) -> None:
    """Raises UserError if fields of the pyramid are set, which is not built."""
    of_pyramid = ["rates", "dropout_rate"]
    if not self.final_conv:
      of_pyramid.append("features")
    for field in of_pyramid:
      value, default = getattr(self, field), getattr(DeepLabV3, field)
      if value != default:
        raise UserError(
          f"model.{field}={value}: {field} belongs to the pyramid, which "
          f"model.cascade_blocks={self.cascade_blocks} replaces; leave it at "
          f"{default}"
        )

  def _pyramid(self, conv) -> nn.Module:
    return AtrousSpatialPyramid(
      scaled_rates(self.rates, self.backbone),
      self.features,
      self.dropout_rate,
      conv=conv,
      spatial=conv,
      name="aspp",
    )

  def _cascade(self, conv) -> nn.Module:
    return Cascade(
      self.cascade_blocks,
      max(32 // self.backbone.output_stride, 1),
      getattr(self.backbone, "multi_grid", ()) or (1,),
      conv=conv,
      name="cascade",
    )

  def _kernel_init(self) -> Callable[..., Any]:
    if self.initialiser not in INITIALISERS:
      raise unknown_name("model.initialiser", self.initialiser, INITIALISERS)
    paper = self.initialiser == "paper"
    return kaiming_fan_out if paper else torch_uniform

  def _classifier(self, fan_in: int) -> nn.Module:
    paper = self.initialiser == "paper"
    return Conv(
      self.num_classes,
      1,
      kernel_init=SCORE_INIT if paper else torch_uniform,
      bias_init=nn.initializers.zeros if paper else torch_uniform_bias(fan_in),
      param_dtype=self.param_dtype,
      name="classifier",
    )


class Cascade(nn.Module):
  """Copies of the last stage: block5, block6, ... (Fig. 3b).

  Attributes:
    blocks: Number of copies.
    dilation: Dilation of the last stage; that of block5 is twice as large.
    multi_grid: Factors on the dilation of the three units of a block.
    conv: Factory of `ConvNormAct`.
  """

  blocks: int
  dilation: int
  multi_grid: tuple[int, ...]
  conv: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    for b in range(self.blocks):
      for unit in range(3):
        grid = self.multi_grid[unit % len(self.multi_grid)]
        dilation = self.dilation * 2 ** (b + 1) * grid
        x = Bottleneck(
          x.shape[-1] // Bottleneck.expansion,
          dilations=(dilation, dilation),
          conv=self.conv,
          name=f"block{b + 5}_unit{unit + 1}",
        )(x, train=train)
    return x


# Fields of ResNet-101 in the paper's network.
BACKBONE = {
  "name": "resnet101",
  "output_stride": 16,
  "multi_grid": (1, 2, 4),
  "contract_dilation": False,
}

VARIANTS = {
  # Fig. 3b: copies of the last stage, block5 to block7, replace the pyramid.
  # Each has twice the dilation of the one before; multi-grid rates (1, 2, 1).
  "cascade": {"cascade_blocks": 3, "backbone": {"multi_grid": (1, 2, 1)}},
  # torchvision's network (models/segmentation/deeplabv3.py): 58,630,997
  # parameters without its auxiliary head, 60,996,202 with it.
  "torchvision": {
    "dropout_rate": 0.5,
    "final_conv": True,
    "auxiliary": True,
    "align_corners": False,
    "initialiser": "torchvision",
    "backbone": {
      "output_stride": 8,
      "multi_grid": (),
      "contract_dilation": True,
    },
  },
}
