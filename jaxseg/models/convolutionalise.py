"""Classifiers as fully convolutional networks.

The idea (Long et al. 2015, arXiv:1411.4038, Sec. 3.1, Fig. 2): the dense
layers of AlexNet and VGG are convolutions whose kernel covers the whole input.
With the same weights they compute a map of class scores for an image of any
size. One pass equals the classifier applied to windows 32 pixels apart, at a
fraction of the cost, because neighbouring windows share their convolutions.

The equality is exact if the backbone does not pad. The published VGG-16 pads,
so its map differs from the sliding classifier where padding is visible.

FCN is initialised from such a network:

  vgg16 = weights.load("vgg16.npz")  # Written by `jaxseg convert`.
  weights.save("vgg16_fcn.npz", convolutionalise(vgg16))

and `--config.init.model=vgg16_fcn.npz --config.init.skip='("score",)'`.
"""

from collections.abc import Mapping
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.backbones.geometry import check_image
from jaxseg.errors import UserError
from jaxseg.layers.conv import Conv
from jaxseg.layers.dense_conv import DenseConvHead
from jaxseg.types import Images, Outputs


class DenseView(nn.Module):
  """A classifier applied convolutionally, with the parameters of FCN-32s.

  Maps `[n, h, w, c]` to `logits` `[n, h', w', num_classes]`: one row of class
  scores for each position of fc6.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone of the classifier.
    head_kernel_size: Side of the map that fc6 covers: 7 for VGG, 6 for AlexNet.
    head_features: Features of fc6 and fc7.
    dropout_rate: Dropout rate after fc6 and fc7.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  head_kernel_size: int = 7
  head_features: int = 4096
  dropout_rate: float = 0.5
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    check_image(self.backbone, image.shape[1:3], least=self.head_kernel_size)
    c5 = self.backbone(image, train=train)["c5"]
    x = DenseConvHead(
      self.head_features,
      self.head_kernel_size,
      dropout_rate=self.dropout_rate,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="head",
    )(c5, train=train)
    score = Conv(
      self.num_classes, 1, param_dtype=self.param_dtype, name="score_fr"
    )(x)
    return {"logits": score.astype(jnp.float32)}


def convolutionalise(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Converts the dense layers of a classifier to convolutions.

  Args:
    variables: Variables of a `classifier` with the head of VGG or AlexNet.

  Returns:
    Variables of `DenseView` and FCN-32s: `head/fc6`, `head/fc7`, `score_fr`.

  Raises:
    UserError: The classifier has a head of another kind.
  """
  params = dict(variables["params"])
  head = params.pop("head", {})
  if set(head) != {"fc6", "fc7", "classifier"}:
    raise UserError(
      f"convolutionalise: params/head has the layers {sorted(head)}; expected "
      "fc6, fc7 and classifier, as in a VGG or AlexNet classifier"
    )
  params["head"] = {
    "fc6": _as_convolution(head["fc6"], _channels(params["backbone"])),
    "fc7": _as_convolution(head["fc7"]),
  }
  params["score_fr"] = _as_convolution(head["classifier"])
  return {**variables, "params": params}


def _channels(trunk: Mapping[str, Any]) -> int:
  """Returns the features of the last convolution, conv5 or conv5_3."""
  last = trunk[max(name for name in trunk if name.startswith("conv"))]
  return last.get("conv", last)["kernel"].shape[-1]


def _as_convolution(
  dense: Mapping[str, Any], channels: int | None = None
) -> dict[str, Any]:
  """Reshapes the kernel of a dense layer to that of a convolution.

  The dense layer reads `[rows, columns, channels]`. `channels` None means a 1x1
  convolution.
  """
  read, features = dense["kernel"].shape
  channels = channels or read
  side = math.isqrt(read // channels)
  kernel = dense["kernel"].reshape(side, side, channels, features)
  return {**dense, "kernel": kernel}
