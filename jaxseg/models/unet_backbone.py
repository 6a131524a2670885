"""U-Net with any backbone as its contracting path.

The idea of U-Net (`unet.py`, Fig. 1) with a classification network as the
contracting path, so that its pretrained weights can be used. Numbers are those
of segmentation_models.pytorch's `Unet`. From c5 on there are five blocks of
two 3x3 convolutions, of 256, 128, 64, 32 and 16 features. Before each block
the map is doubled by nearest-neighbour resizing and, except before the last,
concatenated with the skip of that level. A 3x3 classifier follows at full
resolution. VGG's skips are the maps before each pooling.

Differences: segmentation_models.pytorch takes the stem of EfficientNet as the
skip at stride 2 (here the first stage after it), ends MobileNetV2 with its
1280 features (here the 320 before them), omits the last ReLU of DenseNet, has
a `centre` for VGG only, and rejects image sizes that 32 does not divide.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.vgg import VGG
from jaxseg.errors import UserError, unknown_name
from jaxseg.layers.conv import Conv, ConvNormAct
from jaxseg.layers.crop import crop_or_pad
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.resize import resize_bilinear, resize_nearest
from jaxseg.types import Images, Outputs

UPSAMPLES = ("nearest", "bilinear")

# PyTorch's kaiming_uniform (fan-in) and xavier_uniform.
kaiming_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
xavier_uniform = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")


class UNetBackbone(nn.Module):
  """Maps `[n, h, w, 3]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone with levels c1 to c5; c1 may be missing (AlexNet).
    decoder_features: Features of each block, coarsest first.
    upsample: Resizing before each block: "nearest" or "bilinear".
    skip_first: Whether the skip precedes the upsampled map in concatenations.
    centre: Whether two more convolutions follow c5.
    norm: Factory of the normalisation layers of backbone and decoder.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  decoder_features: tuple[int, ...] = (256, 128, 64, 32, 16)
  upsample: str = "nearest"
  skip_first: bool = False
  centre: bool = False
  norm: Callable[..., Any] = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    if len(self.decoder_features) != 5:
      raise UserError(
        f"model.decoder_features={self.decoder_features}: expected five "
        "numbers, one per decoder block, such as (256, 128, 64, 32, 16)"
      )
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    conv = functools.partial(
      ConvNormAct, norm=self.norm, kernel_init=kaiming_uniform, **types
    )
    maps = self.backbone(image, train=train)
    x = maps["c5"]
    if self.centre:
      for i in (1, 2):
        x = conv(x.shape[-1], name=f"centre_conv{i}")(x, train=train)
    levels = (4, 3, 2, 1, 0)
    for level, width in zip(levels, self.decoder_features, strict=True):
      skip = self._skip(maps, level)
      if skip is not None:
        x = self._upsample(x, skip.shape[1:3])
        parts = [skip, x] if self.skip_first else [x, skip]
        x = jnp.concatenate(parts, axis=-1)
      elif level == 0:
        x = self._upsample(x, image.shape[1:3])
      else:
        x = self._upsample(x, (2 * x.shape[1], 2 * x.shape[2]))
      for i in (1, 2):
        x = conv(width, name=f"up{level}_conv{i}")(x, train=train)
    x = Conv(
      self.num_classes,
      3,
      kernel_init=xavier_uniform,
      param_dtype=self.param_dtype,
      name="classifier",
    )(x)
    return {"logits": x.astype(jnp.float32)}

  def _skip(self, maps, level: int) -> jax.Array | None:
    """Returns the backbone's map at stride 2^level, or None.

    There is no map at the image's own resolution (level 0).
    """
    if isinstance(self.backbone, VGG) and level:
      return maps[f"conv{level + 1}"]
    return maps.get(f"c{level}")

  def _upsample(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes by an integer factor, then crops or zero-pads to `size`.

    The factor is 2, or 1 where a dilated backbone's map already has the size of
    its skip.
    """
    factor = max(round(size[0] / x.shape[1]), round(size[1] / x.shape[2]), 1)
    larger = (factor * x.shape[1], factor * x.shape[2])
    if self.upsample == "nearest":
      x = resize_nearest(x, larger)
    elif self.upsample == "bilinear":
      x = resize_bilinear(x, larger, align_corners=False)
    else:
      raise unknown_name("model.upsample", self.upsample, UPSAMPLES)
    return crop_or_pad(x, size)


BACKBONE = {"name": "resnet34"}
