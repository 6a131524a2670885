"""FC-DenseNet, "the one hundred layers Tiramisu" (Jegou et al. 2017).

arXiv:1611.09326. The idea (Fig. 1): a U-Net of dense blocks. There are three
kinds of concatenation: inside a block each layer sees all before it (Fig. 2);
at the end of a contracting block its input is joined too, and the whole stack
is the skip; and the skip joins the map that comes up. What goes up from a
block are the outputs of its own layers alone, so that features do not pile up
on the way to the full resolution (Sec. 3.2).

Numbers are those of the authors' code (SimJeg/FC-DenseNet, FC-DenseNet.py and
layers.py): a linear 3x3 convolution to 48 features; layer = norm, ReLU, 3x3,
dropout 0.2; down = norm, ReLU, 1x1, dropout, 2x2 max pooling; up = linear 3x3
transposed convolution at stride 2, unpadded, cropped about the centre to the
skip; a 1x1 classifier without a norm before it. Weights are He-uniform,
biases present throughout. Lasagne's norm has an epsilon of 1e-4.

The authors always normalise by the statistics of the batch they see, in
validation and test as well: `batch_statistics`. Images that are tested
together then influence one another.
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
# Lasagne counts as the fan in of a transposed convolution its features * k^2.
he_uniform_transposed = nn.initializers.variance_scaling(
  2.0, "fan_in", "uniform", in_axis=-1, out_axis=-2
)


class SeenNorm(BatchNorm):
  """Batch normalisation that evaluates by what it sees, too.

  Trains like `BatchNorm`, running statistics and all; frozen it is one.

  Attributes:
    each_image: in evaluation, of each image by itself.
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


class DenseBlock(nn.Module):
  """The outputs of `layers` layers, each of which sees all before it."""

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
  """Norm, ReLU, convolution, dropout: every convolution but the first."""

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
  """`[n, h, w, 3]` -> `logits` `[n, h, w, num_classes]`.

  Attributes:
    down_layers: layers of each contracting block; the expanding ones have as
      many, backwards.
    bottleneck_layers: of the block at the bottom.
    growth: features that a layer adds.
    stem_features: of the first convolution.
    dropout_rate: after every convolution that follows a norm.
    batch_statistics: what evaluation normalises by: "batch" (as published),
      "image" (the same with one image a batch: the result depends neither on
      the other images nor on padding among them) or "running" averages.
      Norms that are not batch normalisation are left as they are.
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
        f"fc_densenet: the image is {sides[0]}x{sides[1]}; with {depth} "
        f"poolings expected sides of {2**depth} pixels or more"
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
      # 2 n + 1 pixels come up from the floor of half the skip's.
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
    """The norm, or the one that does as it does in training."""
    if self.batch_statistics not in STATISTICS:
      raise unknown_name(
        "model.batch_statistics", self.batch_statistics, STATISTICS
      )
    kind = getattr(self.norm, "func", self.norm)
    if kind is not BatchNorm or self.batch_statistics == "running":
      return self.norm
    return functools.partial(
      SeenNorm,
      **getattr(self.norm, "keywords", {}),
      each_image=self.batch_statistics == "image",
    )


# Table 2 of the paper gives 103's blocks; the others' are of Sec. 4.1.
fc_densenet56 = functools.partial(
  FCDenseNet, down_layers=(4,) * 5, bottleneck_layers=4, growth=12
)
fc_densenet67 = functools.partial(
  FCDenseNet, down_layers=(5,) * 5, bottleneck_layers=5, growth=16
)
fc_densenet103 = functools.partial(
  FCDenseNet, down_layers=(4, 5, 7, 10, 12), bottleneck_layers=15, growth=16
)
