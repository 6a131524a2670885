"""DeepLab v3 (Chen et al. 2017, arXiv:1706.05587).

The idea (Sec. 3): no stride beyond 16 or 8, and a larger field of view by
atrous convolution, in either of two ways:

- `variant="paper"` (the default; Fig. 5; 58,040,661 parameters with
  ResNet-101 and 21 classes): a pyramid of rates with the mean of the whole
  image, on a ResNet whose last stage has multi-grid rates (1, 2, 4) times 2;
- `variant="cascade"` (Fig. 3b): the last stage copied three times, block5 to
  block7, each of twice the dilation of the one before; multi-grid (1, 2, 1).

Output stride 16 is for training; at 8, for the second stage of training and
for evaluation, the same weights have twice the dilations.

`variant="torchvision"` is torchvision's network of this name
(models/segmentation/deeplabv3.py): output stride 8 without multi-grid, a 3x3
convolution after the pyramid, dropout 0.5 in it, half-pixel resizing, and
FCN's auxiliary head on c4 (58,630,997 parameters without it, 60,996,202
with). VainF's DeepLabV3 is that with `dropout_rate=0.1, auxiliary=False`,
segmentation_models_pytorch's with `align_corners=True, auxiliary=False` and a
backbone of `contract_dilation=False`.

Dropout 0.1, resizing between corners and the scores' N(0, 0.01) are those of
the authors' TensorFlow code (research/deeplab).
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.resnet import Bottleneck
from jaxseg.errors import unknown_name
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


@dataclasses.dataclass(frozen=True)
class Variant:
  """What a variant is made of.

  Attributes:
    backbone: its fields of the backbone.
    cascade: block5 to block7 instead of the pyramid.
    conv: a 3x3 convolution after the pyramid.
    dropout_rate: of the pyramid.
    align_corners: how scores are resized.
    auxiliary: FCN's head on c4.
    kernel_init: of the convolutions before the scores.
    score_init: of the scores' kernel.
    score_bias_init: of their bias, by the fan in.
  """

  backbone: Mapping[str, Any]
  cascade: bool = False
  conv: bool = False
  dropout_rate: float = 0.1
  align_corners: bool = True
  auxiliary: bool = False
  kernel_init: Callable[..., Any] = kaiming_fan_out
  score_init: Callable[..., Any] = SCORE_INIT
  score_bias_init: Callable[[int], Any] = lambda fan_in: nn.initializers.zeros


_ATROUS = {"output_stride": 16, "contract_dilation": False}
VARIANTS = {
  "paper": Variant(backbone={**_ATROUS, "multi_grid": (1, 2, 4)}),
  "cascade": Variant(
    backbone={**_ATROUS, "multi_grid": (1, 2, 1)}, cascade=True
  ),
  "torchvision": Variant(
    backbone={"output_stride": 8},
    conv=True,
    dropout_rate=0.5,
    align_corners=False,
    auxiliary=True,
    kernel_init=torch_uniform,
    score_init=torch_uniform,
    score_bias_init=torch_uniform_bias,
  ),
}


class Cascade(nn.Module):
  """block5, block6, ...: the last stage again and again (Fig. 3b).

  Attributes:
    blocks: how many.
    dilation: of the last stage; block5's is twice that.
    multi_grid: factors on the dilation of a block's three units.
    conv: a factory of `ConvNormAct`.
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


class DeepLabV3(nn.Module):
  """`[n, h, w, 3]` -> `logits`; `aux_logits` too where there is such a head.

  Attributes:
    backbone: gives c5, and c4 for the auxiliary head.
    variant: "paper", "cascade" or "torchvision"; None below is the variant's.
    rates: of the pyramid at output stride 16; at 8 they double.
    features: of the pyramid.
    cascade_blocks: copies of the last stage, in the cascade.
    dropout_rate: of the pyramid.
    align_corners: how scores are resized.
    auxiliary: whether there is an auxiliary head on c4.
  """

  num_classes: int
  backbone: nn.Module
  variant: str = "paper"
  rates: tuple[int, ...] = (6, 12, 18)
  features: int = 256
  cascade_blocks: int = 3
  dropout_rate: float | None = None
  align_corners: bool | None = None
  auxiliary: bool | None = None
  norm: Callable[..., Any] = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    form = self.form()
    conv = functools.partial(
      ConvNormAct,
      norm=self.norm,
      kernel_init=form.kernel_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    features = self.backbone(image, train=train)
    x = self._context(features["c5"], form, conv, train)
    if form.conv:
      x = conv(self.features, 3, name="conv")(x, train=train)
    x = Conv(
      self.num_classes,
      1,
      kernel_init=form.score_init,
      bias_init=form.score_bias_init(x.shape[-1]),
      param_dtype=self.param_dtype,
      name="classifier",
    )(x)
    logits = {"logits": x.astype(jnp.float32)}
    if form.auxiliary:
      logits["aux_logits"] = FCNHead(
        self.num_classes,
        0.1,
        conv=conv,
        param_dtype=self.param_dtype,
        name="aux_head",
      )(features["c4"], train=train)
    return {
      key: resize_bilinear(
        value, image.shape[1:3], align_corners=form.align_corners
      )
      for key, value in logits.items()
    }

  def form(self) -> Variant:
    """The variant, with this network's own fields."""
    if self.variant not in VARIANTS:
      raise unknown_name("variant of deeplab_v3", self.variant, VARIANTS)
    own = {
      field: getattr(self, field)
      for field in ("dropout_rate", "align_corners", "auxiliary")
      if getattr(self, field) is not None
    }
    return dataclasses.replace(VARIANTS[self.variant], **own)

  def _context(self, x, form: Variant, conv, train: bool) -> jax.Array:
    """The last features with a larger field of view."""
    rates = scaled_rates(self.rates, self.backbone)
    if not form.cascade:
      return AtrousSpatialPyramid(
        rates,
        self.features,
        form.dropout_rate,
        conv=conv,
        spatial=conv,
        name="aspp",
      )(x, train=train)
    return Cascade(
      self.cascade_blocks,
      max(32 // self.backbone.output_stride, 1),
      getattr(self.backbone, "multi_grid", ()) or (1,),
      conv=conv,
      name="cascade",
    )(x, train=train)


def paper_backbone(fields: Mapping[str, Any]) -> dict[str, Any]:
  """ResNet-101 as the variant among a network's `fields` has it."""
  form = VARIANTS.get(fields.get("variant", "paper"), VARIANTS["paper"])
  return {"name": "resnet101", **form.backbone}
