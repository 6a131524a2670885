"""The dense layers of a classifier, as convolutions.

The idea (Long et al. 2015, arXiv:1411.4038, Sec. 3.1, Fig. 2): a dense layer on
a 7x7 map is a 7x7 convolution with a single output position. Applied as a
convolution, the classifier accepts images of any size and returns a map of
scores. FCN, the DeepLabs and DilatedNet keep VGG's fc6 and fc7 this way.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.layers.conv import Conv, kaiming_fan_in
from jaxseg.types import Activation


class DenseConvHead(nn.Module):
  """The layers fc6 and fc7, `[n, h, w, c] -> [n, h', w', features]`.

  Attributes:
    features: Number of channels of both layers; VGG has 4096.
    kernel_size: Side of the kernel of fc6; the kernel of fc7 is 1x1.
    dilation: Dilation of fc6. A denser map needs a larger dilation for the same
      kernel.
    padding: Padding of fc6 on every side; None keeps the size.
    dropout_rate: Dropout rate after each layer.
    act: Activation of both layers.
    kernel_init: Initialiser of both kernels.
    dtype: Computation dtype.
    param_dtype: Dtype of the parameters.
  """

  features: int = 4096
  kernel_size: int = 7
  dilation: int = 1
  padding: int | None = 0
  dropout_rate: float = 0.5
  act: Activation = nn.relu
  kernel_init: Callable[..., Any] = kaiming_fan_in
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    conv = functools.partial(
      Conv,
      self.features,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    pad = self.padding
    x = conv(
      kernel_size=self.kernel_size,
      dilation=self.dilation,
      padding=None if pad is None else ((pad, pad), (pad, pad)),
      name="fc6",
    )(x)
    x = nn.Dropout(self.dropout_rate, name="dropout6")(
      self.act(x), deterministic=not train
    )
    x = conv(kernel_size=1, name="fc7")(x)
    return nn.Dropout(self.dropout_rate, name="dropout7")(
      self.act(x), deterministic=not train
    )
