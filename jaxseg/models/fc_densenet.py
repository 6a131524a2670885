"""FC-DenseNet, "the one hundred layers Tiramisu" (Jegou et al. 2017).

arXiv:1611.09326. The idea (Fig. 1): a U-Net of dense blocks. It concatenates
in three places. Inside a block each layer reads the outputs of all layers
before it (Fig. 2). At the end of a contracting block the block's input is
concatenated with its outputs, and the result is the skip. The skip is
concatenated with the upsampled map. Only the outputs of a block's own layers
are upsampled, so that the number of features stays small at full resolution
(Sec. 3.2).

Numbers are those of the authors' code (SimJeg/FC-DenseNet, FC-DenseNet.py and
layers.py): a linear 3x3 convolution to 48 features; layer = norm, ReLU, 3x3,
dropout 0.2; transition down = norm, ReLU, 1x1, dropout, 2x2 max pooling;
transition up = linear, unpadded 3x3 transposed convolution of stride 2,
cropped about the centre to the size of the skip; a 1x1 classifier without a
norm before it. Weights are He-uniform, all convolutions have biases, and
Lasagne's norm has an epsilon of 1e-4.

The authors' networks normalise by batch statistics in validation and test as
well (`batch_statistics`), so that the images of a test batch influence one
another.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.errors import UserError, unknown_name
from jaxseg.layers.conv import Conv
from jaxseg.layers.crop import centre_crop
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import max_pool
from jaxseg.layers.transposed import ConvTranspose
from jaxseg.types import Images, Outputs

STATISTICS = ("batch", "image", "running")

he_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
# Lasagne's fan-in of a transposed convolution is features * kernel_size^2.
he_uniform_transposed = nn.initializers.variance_scaling(
  2.0, "fan_in", "uniform", in_axis=-1, out_axis=-2
)


class DenseBlock(nn.Module):
  """A dense block (Fig. 2); returns the outputs of its layers, concatenated.

  Maps `[n, h, w, c]` to `[n, h, w, layers * growth]`.

  Attributes:
    layers: Number of layers.
    growth: Features of each layer.
    conv: Factory of `NormActConv`.
  """

  layers: int
  growth: int
  conv: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    new = []
    for i in range(1, self.layers + 1):
      stack = jnp.concatenate([x, *new], axis=-1)
      new.append(
        self.conv(self.growth, 3, name=f"layer{i}")(stack, train=train)
      )
    return jnp.concatenate(new, axis=-1)


class NormActConv(nn.Module):
  """Norm, ReLU, convolution and dropout: every convolution but the first.

  Attributes:
    features: Output features.
    kernel_size: Side of the kernel.
    dropout_rate: Dropout rate after the convolution.
    norm: Factory of the normalisation.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  features: int
  kernel_size: int
  dropout_rate: float
  norm: Callable[..., Any]
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    x = nn.relu(self.norm(**types, name="norm")(x, train=train))
    x = Conv(
      self.features,
      self.kernel_size,
      kernel_init=he_uniform,
      **types,
      name="conv",
    )(x)
    return nn.Dropout(self.dropout_rate, name="dropout")(
      x, deterministic=not train
    )


class FCDenseNet(nn.Module):
  """Maps `[n, h, w, 3]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    down_layers: Layers of each contracting block, finest first; the expanding
      blocks mirror them.
    bottleneck_layers: Layers of the block between the two paths.
    growth: Features of each layer.
    stem_features: Features of the first convolution.
    dropout_rate: Dropout rate after every convolution that follows a norm.
    batch_statistics: Statistics that evaluation normalises by: those of the
      "batch" (as published), of each "image" (independent of the other images
      and of padded ones), or the "running" averages. Other norms than batch
      normalisation are not affected.
    norm: Factory of the normalisation layers.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  down_layers: tuple[int, ...]
  bottleneck_layers: int
  growth: int
  stem_features: int = 48
  dropout_rate: float = 0.2
  batch_statistics: str = "batch"
  norm: Callable[..., Any] = functools.partial(BatchNorm, epsilon=1e-4)
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    depth, sides = len(self.down_layers), tuple(image.shape[1:3])
    if min(sides) < 2**depth:
      raise UserError(
        f"fc_densenet: the image is {sides[0]}x{sides[1]}; expected sides of "
        f"{2**depth} pixels or more for {depth} poolings"
      )
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    conv = functools.partial(
      NormActConv, dropout_rate=self.dropout_rate, norm=self._norm(), **types
    )
    block = functools.partial(DenseBlock, growth=self.growth, conv=conv)
    x = Conv(
      self.stem_features, 3, kernel_init=he_uniform, **types, name="stem"
    )(image)
    skips = []
    for i, layers in enumerate(self.down_layers, start=1):
      new = block(layers, name=f"down{i}")(x, train=train)
      x = jnp.concatenate([x, new], axis=-1)
      skips.append(x)
      x = conv(x.shape[-1], 1, name=f"transition_down{i}")(x, train=train)
      x = max_pool(x, 2)
    new = block(self.bottleneck_layers, name="bottleneck")(x, train=train)
    for i in range(depth, 0, -1):
      skip = skips[i - 1]
      x = ConvTranspose(
        new.shape[-1],
        3,
        strides=2,
        kernel_init=he_uniform_transposed,
        **types,
        name=f"transition_up{i}",
      )(new)
      # The transposed convolution of n pixels has 2 n + 1, and the skip 2 n or
      # 2 n + 1.
      x = jnp.concatenate([centre_crop(x, skip.shape[1:3]), skip], axis=-1)
      new = block(self.down_layers[i - 1], name=f"up{i}")(x, train=train)
    x = jnp.concatenate([x, new], axis=-1)
    x = Conv(
      self.num_classes,
      1,
      kernel_init=he_uniform,
      param_dtype=self.param_dtype,
      name="classifier",
    )(x)
    return {"logits": x.astype(jnp.float32)}

  def _norm(self) -> Callable[..., Any]:
    """Returns `norm`, or its `BatchStatisticsNorm` if evaluation needs one."""
    if self.batch_statistics not in STATISTICS:
      raise unknown_name(
        "model.batch_statistics", self.batch_statistics, STATISTICS
      )
    kind = getattr(self.norm, "func", self.norm)
    if kind is not BatchNorm or self.batch_statistics == "running":
      return self.norm
    return functools.partial(
      BatchStatisticsNorm,
      **getattr(self.norm, "keywords", {}),
      each_image=self.batch_statistics == "image",
    )


class BatchStatisticsNorm(BatchNorm):
  """Batch normalisation that uses batch statistics in evaluation, too.

  Training is that of `BatchNorm`, including its running statistics. If `frozen`
  is set, it equals a frozen `BatchNorm`.

  Attributes:
    each_image: Whether evaluation normalises each image by its own statistics
      instead of those of the batch.
  """

  each_image: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    if train or self.frozen or self.is_initializing():
      return super().__call__(x, train=train)
    scale = self.param("scale", self.scale_init, x.shape[-1:], self.param_dtype)
    bias = self.param("bias", self.bias_init, x.shape[-1:], self.param_dtype)
    axes = (1, 2) if self.each_image else (0, 1, 2)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = self._mean(wide, axes)
    variance = self._mean(jnp.square(wide - mean), axes)
    y = (wide - mean) * (jax.lax.rsqrt(variance + self.epsilon) * scale) + bias
    return y.astype(jnp.dtype(self.dtype or x.dtype))

  def _mean(self, x, axes) -> jax.Array:
    mean = jnp.mean(x, axis=axes, keepdims=True)
    if self.axis_name is None or self.each_image:
      return mean
    return jax.lax.pmean(mean, self.axis_name)


# Blocks of FC-DenseNet103 are in Table 2, those of the others in Sec. 4.1.
fc_densenet56 = functools.partial(
  FCDenseNet, down_layers=(4,) * 5, bottleneck_layers=4, growth=12
)
fc_densenet67 = functools.partial(
  FCDenseNet, down_layers=(5,) * 5, bottleneck_layers=5, growth=16
)
fc_densenet103 = functools.partial(
  FCDenseNet, down_layers=(4, 5, 7, 10, 12), bottleneck_layers=15, growth=16
)
