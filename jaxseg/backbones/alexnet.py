"""AlexNet, in torchvision's form and in Caffe's.

"alexnet" is torchvision's (models/alexnet.py): the one-tower network of "One
weird trick" (Krizhevsky 2014, arXiv:1404.5997), without normalisation, with
PyTorch's default initialiser. "caffenet" is the network of Krizhevsky et al.
2012 (Fig. 2) in the form of BVLC's reference model, which FCN-AlexNet uses:
two groups in conv2, conv4 and conv5; local response normalisation *after* the
first two pools; pools in ceil mode; no padding at conv1 (FCN: `padding=100`);
weights from N(0, 0.01), and biases of 1 in the grouped layers
(train_val.prototxt).

The first convolution has stride 4, so there is no c1. Levels:

| level | tensor                 | nominal stride |
|-------|------------------------|----------------|
| c2    | conv1 after ReLU       | 4              |
| c3    | conv2 after ReLU       | 8              |
| c4    | conv5 after ReLU       | 16             |
| c5    | pool5                  | 32             |

The output also has the keys conv3, conv4, pool1 and pool2 (normalised).
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.strides import Stage, dilate, stage_max_pool
from jaxseg.layers.conv import Conv, torch_uniform, torch_uniform_bias
from jaxseg.layers.lrn import local_response_norm
from jaxseg.types import Activation, Features, Images


class AlexNet(nn.Module):
  """An AlexNet trunk: image `[n, h, w, 3]` to `{"c2": ..., "c5": ...}`.

  Attributes:
    widths: Features of the five convolutions.
    padding: Padding of the first convolution, 11x11 of stride 4.
    groups: Number of groups of conv2, conv4 and conv5.
    response_norm: Whether local response normalisation follows pool1 and pool2.
    ceil_mode: Whether pools keep the last, partial window.
    caffe_init: Whether weights have Caffe's initialiser instead of PyTorch's.
    output_stride: Stride of c5: 32, 16, 8 or 4. A pool of removed stride is
      unpadded, so its map is smaller by the pixels without a whole window.
    act: Activation.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  widths: tuple[int, ...] = (64, 192, 384, 256, 256)
  padding: int = 2
  groups: int = 1
  response_norm: bool = False
  ceil_mode: bool = False
  caffe_init: bool = False
  output_stride: int = 32
  act: Activation = nn.relu
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Features:
    del train  # Training and evaluation are the same.
    _, *stages = dilate((4, 2, 2, 2), self.output_stride)
    dilation = [stage.dilation for stage in stages]
    groups = self.groups
    pads = ((self.padding,) * 2,) * 2
    features = {}
    x = self._conv(image, 1, 11, strides=4, padding=pads)
    features["c2"] = x
    x = self._pool(x, stages[0], self.response_norm)
    features["pool1"] = x
    x = self._conv(x, 2, 5, dilation=dilation[0], groups=groups)
    features["c3"] = x
    x = self._pool(x, stages[1], self.response_norm)
    features["pool2"] = x
    x = self._conv(x, 3, 3, dilation=dilation[1])
    features["conv3"] = x
    x = self._conv(x, 4, 3, dilation=dilation[1], groups=groups)
    features["conv4"] = x
    x = self._conv(x, 5, 3, dilation=dilation[1], groups=groups)
    features["c4"] = x
    features["c5"] = self._pool(x, stages[2], False)
    return features

  def _pool(self, x: jax.Array, stage: Stage, response_norm: bool):
    """Applies a 3x3 pool and, if asked for, local response normalisation."""
    x = stage_max_pool(x, 3, stage, ceil_mode=self.ceil_mode)
    return local_response_norm(x) if response_norm else x

  def _conv(
    self, x: jax.Array, i: int, kernel_size: int, groups: int = 1, **fields
  ) -> jax.Array:
    """Applies convolution `i`, 1 to 5, and the activation."""
    if self.caffe_init:
      kernel_init: Callable[..., Any] = nn.initializers.normal(0.01)
      bias_init = nn.initializers.constant(float(groups > 1))
    else:
      fan_in = kernel_size**2 * x.shape[-1] // groups
      kernel_init, bias_init = torch_uniform, torch_uniform_bias(fan_in)
    x = Conv(
      self.widths[i - 1],
      kernel_size,
      groups=groups,
      kernel_init=kernel_init,
      bias_init=bias_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=f"conv{i}",
      **fields,
    )(x)
    return self.act(x)


ALEXNETS = {
  "alexnet": functools.partial(AlexNet),
  "caffenet": functools.partial(
    AlexNet,
    widths=(96, 256, 384, 384, 256),
    padding=0,
    groups=2,
    response_norm=True,
    ceil_mode=True,
    caffe_init=True,
  ),
}
