"""Squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507, Fig. 2).

The idea: average each channel over the image, compute one gate per channel from
all averages with two small layers, and scale every channel by its gate. The two
layers are 1x1 convolutions with bias, as in the authors' Caffe files.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.layers.conv import Conv
from jaxseg.types import Activation


class SqueezeExcite(nn.Module):
  """Scales the channels of `[n, h, w, c]` by a gate in (0, 1).

  Attributes:
    features: Number of channels between the two layers; c / 16 in SENet.
    act: Activation between the two layers.
    dtype: Computation dtype.
    param_dtype: Dtype of the parameters.
  """

  features: int
  act: Activation = nn.relu
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    gate = jnp.mean(x, axis=(1, 2), keepdims=True)
    gate = self.act(Conv(self.features, 1, **types, name="reduce")(gate))
    gate = Conv(x.shape[-1], 1, **types, name="expand")(gate)
    return x * nn.sigmoid(gate)
