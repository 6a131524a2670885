"""DenseNet: densely connected networks (Huang et al. 2017, arXiv:1608.06993).

The idea (Fig. 2): each layer reads the outputs of all layers before it in its
block and adds a few features (`growth`) of its own. These are the networks
with bottlenecks and compression (DenseNet-BC, Table 1) in torchvision's form
(models/densenet.py). A layer is norm, ReLU, 1x1 to 4 * growth, norm, ReLU,
3x3 to growth. A transition is norm, ReLU, 1x1 to half the features, 2x2
average pooling. Levels, all of them after norm and ReLU:

| level | tensor                                           | stride |
|-------|--------------------------------------------------|--------|
| c1    | stem, before pooling                             | 2      |
| c2    | block 1, after the norm and ReLU of transition 1 | 4      |
| c3    | block 2, after the norm and ReLU of transition 2 | 8      |
| c4    | block 3, after the norm and ReLU of transition 3 | 16     |
| c5    | block 4, after the final norm and ReLU           | 32     |
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.strides import dilate, stage_avg_pool, stage_max_pool
from jaxseg.layers.conv import Conv, ConvNormAct, kaiming_fan_in
from jaxseg.layers.norm import BatchNorm
from jaxseg.types import Activation, Features, Images


class DenseLayer(nn.Module):
  """A dense layer; returns the `growth` features that it adds to its block.

  Attributes:
    growth: Output features.
    dilation: Dilation of the 3x3 convolution.
    dropout_rate: Dropout rate of the output.
    conv: Factory of `Conv`.
    norm: Factory of the normalisation layers.
    act: Activation.
  """

  growth: int
  dilation: int
  dropout_rate: float
  conv: Callable[..., Any]
  norm: Callable[..., Any]
  act: Activation

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = self.act(self.norm(name="norm1")(x, train=train))
    x = self.conv(4 * self.growth, 1, name="conv1")(x)
    x = self.act(self.norm(name="norm2")(x, train=train))
    x = self.conv(self.growth, 3, dilation=self.dilation, name="conv2")(x)
    return nn.Dropout(self.dropout_rate, name="dropout")(
      x, deterministic=not train
    )


class DenseNet(nn.Module):
  """A DenseNet trunk: image `[n, h, w, 3]` to `{"c1": ..., "c5": ...}`.

  Attributes:
    block_sizes: Number of layers in each of the four blocks.
    growth: Features of each layer.
    stem_features: Features of the first convolution.
    dropout_rate: Dropout rate after each layer; the authors use dropout where
      they train without augmentation.
    output_stride: Stride of c5: 32, 16, 8 or 4. A transition of removed stride
      averages over dilated 2x2 windows and keeps the size.
    norm: Factory of the normalisation layers.
    act: Activation.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  block_sizes: tuple[int, ...]
  growth: int = 32
  stem_features: int = 64
  dropout_rate: float = 0.0
  output_stride: int = 32
  norm: Callable[..., Any] = BatchNorm
  act: Activation = nn.relu
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Features:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    norm = functools.partial(self.norm, **types)
    conv = functools.partial(
      Conv, use_bias=False, kernel_init=kaiming_fan_in, **types
    )
    layer = functools.partial(
      DenseLayer,
      self.growth,
      dropout_rate=self.dropout_rate,
      conv=conv,
      norm=norm,
      act=self.act,
    )
    _, pool, *transitions = dilate((2, 2, 2, 2, 2), self.output_stride)
    x = ConvNormAct(
      self.stem_features,
      7,
      strides=2,
      norm=self.norm,
      act=self.act,
      kernel_init=kaiming_fan_in,
      **types,
      name="stem",
    )(image, train=train)
    features = {"c1": x}
    x = stage_max_pool(x, 3, pool, padding=1)
    before = [pool, *transitions]
    for s, size in enumerate(self.block_sizes, start=1):
      dilation = before[s - 1].dilation
      for b in range(1, size + 1):
        y = layer(dilation, name=f"block{s}_layer{b}")(x, train=train)
        x = jnp.concatenate([x, y], axis=-1)
      last = s == len(self.block_sizes)
      name = "norm" if last else f"transition{s}_norm"
      x = self.act(norm(name=name)(x, train=train))
      features[f"c{s + 1}"] = x
      if not last:
        x = conv(x.shape[-1] // 2, 1, name=f"transition{s}_conv")(x)
        x = stage_avg_pool(x, 2, transitions[s - 1])
    return features


DENSENETS = {
  "densenet121": functools.partial(DenseNet, block_sizes=(6, 12, 24, 16)),
  "densenet161": functools.partial(
    DenseNet, block_sizes=(6, 12, 36, 24), growth=48, stem_features=96
  ),
  "densenet169": functools.partial(DenseNet, block_sizes=(6, 12, 32, 32)),
  "densenet201": functools.partial(DenseNet, block_sizes=(6, 12, 48, 32)),
}
