"""The head of torchvision's FCN (models/segmentation/fcn.py, `FCNHead`).

FCN-ResNet classifies c5 and c4 with it; torchvision's DeepLab v3 uses it as
the auxiliary head on c4.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.layers.conv import Conv, torch_uniform, torch_uniform_bias


class FCNHead(nn.Module):
  """A 3x3 convolution to c / 4 features, dropout, and a 1x1 classifier.

  Maps `[n, h, w, c]` to float32 logits `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    dropout_rate: Dropout rate before the classifier.
    conv: Factory of `ConvNormAct` for the 3x3 convolution.
    param_dtype: Dtype of the classifier's parameters.
  """

  num_classes: int
  dropout_rate: float
  conv: Callable[..., Any]
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    features = x.shape[-1] // 4
    x = self.conv(features, kernel_init=torch_uniform, name="conv")(
      x, train=train
    )
    x = nn.Dropout(self.dropout_rate, name="dropout")(
      x, deterministic=not train
    )
    x = Conv(
      self.num_classes,
      1,
      kernel_init=torch_uniform,
      bias_init=torch_uniform_bias(features),
      param_dtype=self.param_dtype,
      name="classifier",
    )(x)
    return x.astype(jnp.float32)
