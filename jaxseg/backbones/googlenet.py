"""GoogLeNet, Inception v1 (Szegedy et al. 2015, arXiv:1409.4842, Table 1).

The idea (Fig. 2b): each inception block processes its input at several kernel
sizes in parallel (1x1, 3x3, 5x5, pooling), after 1x1 reductions that limit the
cost. Numbers are torchvision's (models/googlenet.py), whose weights were
trained with batch normalisation (epsilon 1e-3) after each convolution, without
local response normalisation, and with 3x3 kernels in the paper's 5x5 branch;
`branch3_kernel=5` is the paper's. Pools are in ceil mode.

Levels, by nominal stride. The two auxiliary classifiers of
`models/classifier.py` read "inception4a" and "inception4d".

| level | tensor                        | stride |
|-------|-------------------------------|--------|
| c1    | conv1 (7x7, stride 2)         | 2      |
| c2    | conv3, before pooling         | 4      |
| c3    | inception3b, before pooling   | 8      |
| c4    | inception4e, before pooling   | 16     |
| c5    | inception5b                   | 32     |
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.strides import dilate, stage_max_pool
from jaxseg.layers.conv import ConvNormAct
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import dilated_max_pool
from jaxseg.types import Activation, Features, Images

# Table 1, features: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
INCEPTIONS = {
  "3a": (64, 96, 128, 16, 32, 32),
  "3b": (128, 128, 192, 32, 96, 64),
  "4a": (192, 96, 208, 16, 48, 64),
  "4b": (160, 112, 224, 24, 64, 64),
  "4c": (128, 128, 256, 24, 64, 64),
  "4d": (112, 144, 288, 32, 64, 64),
  "4e": (256, 160, 320, 32, 128, 128),
  "5a": (256, 160, 320, 32, 128, 128),
  "5b": (384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
  """An inception block: four parallel branches, concatenated (Fig. 2b).

  Attributes:
    features: Features of the six convolutions, a row of Table 1.
    branch3_kernel: Kernel size of the third branch.
    dilation: Dilation of all windows larger than 1x1.
    conv: Factory of `ConvNormAct`.
  """

  features: tuple[int, int, int, int, int, int]
  branch3_kernel: int
  dilation: int
  conv: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    f1, f2_reduce, f2, f3_reduce, f3, f4 = self.features
    conv, d = self.conv, self.dilation
    y1 = conv(f1, 1, name="branch1")(x, train=train)
    y2 = conv(f2_reduce, 1, name="branch2_reduce")(x, train=train)
    y2 = conv(f2, 3, dilation=d, name="branch2")(y2, train=train)
    y3 = conv(f3_reduce, 1, name="branch3_reduce")(x, train=train)
    y3 = conv(f3, self.branch3_kernel, dilation=d, name="branch3")(
      y3, train=train
    )
    y4 = dilated_max_pool(x, 3, d, (d, d))
    y4 = conv(f4, 1, name="branch4")(y4, train=train)
    return jnp.concatenate([y1, y2, y3, y4], axis=-1)


class GoogLeNet(nn.Module):
  """A GoogLeNet trunk: image `[n, h, w, 3]` to `{"c1": ..., "c5": ...}`.

  Attributes:
    branch3_kernel: Kernel size of the third branch: 3 (torchvision) or 5 (the
      paper).
    width_div: Divisor of all widths; larger than 1 for small experiments.
    output_stride: Stride of c5: 32, 16, 8, 4 or 2. Blocks after a pool of
      removed stride are dilated. Such a pool is unpadded, so its map is smaller
      by the pixels without a whole window.
    norm: Factory of the normalisation layers. The default has the epsilon of
      torchvision's weights; any other replaces it.
    act: Activation.
    kernel_init: Initialiser of the kernels.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  branch3_kernel: int = 3
  width_div: int = 1
  output_stride: int = 32
  norm: Callable[..., Any] = functools.partial(BatchNorm, epsilon=1e-3)
  act: Activation = nn.relu
  kernel_init: Callable[..., Any] = nn.initializers.normal(0.01)
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Features:
    conv = functools.partial(
      ConvNormAct,
      norm=self.norm,
      act=self.act,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    div = self.width_div
    _, pool1, pool2, pool3, pool4 = dilate((2, 2, 2, 2, 2), self.output_stride)
    features = {}

    def blocks(x, names, stage):
      for name in names:
        features[f"inception{name}"] = x = Inception(
          tuple(f // div for f in INCEPTIONS[name]),
          self.branch3_kernel,
          dilation=stage.dilation,
          conv=conv,
          name=f"inception{name}",
        )(x, train=train)
      return x

    x = conv(64 // div, 7, strides=2, name="conv1")(image, train=train)
    features["c1"] = x
    x = stage_max_pool(x, 3, pool1, ceil_mode=True)
    x = conv(64 // div, 1, name="conv2")(x, train=train)
    x = conv(192 // div, 3, dilation=pool1.dilation, name="conv3")(
      x, train=train
    )
    features["c2"] = x
    x = stage_max_pool(x, 3, pool2, ceil_mode=True)
    features["c3"] = x = blocks(x, ("3a", "3b"), pool2)
    x = stage_max_pool(x, 3, pool3, ceil_mode=True)
    features["c4"] = x = blocks(x, ("4a", "4b", "4c", "4d", "4e"), pool3)
    x = stage_max_pool(x, 2, pool4, ceil_mode=True)
    features["c5"] = blocks(x, ("5a", "5b"), pool4)
    return features


GOOGLENETS = {"googlenet": functools.partial(GoogLeNet)}
