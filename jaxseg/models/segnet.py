"""SegNet, SegNet-Basic and Bayesian SegNet.

SegNet (Badrinarayanan, Kendall & Cipolla 2017, arXiv:1511.00561). The idea
(Fig. 2 and 3): the encoder is VGG-16 without its dense layers; the decoder
mirrors it, and where the encoder pooled it puts each value back where the
maximum had been, so that edges keep their place and nothing is learned for
upsampling. The last decoder convolution is the classifier.

SegNet-Basic (Sec. 3.3 of the paper): four 7x7 convolutions of 64 features
down, four up without ReLU, and local response normalisation of the image.

Bayesian SegNet (Kendall, Badrinarayanan & Cipolla 2015, arXiv:1511.02680,
Fig. 1): dropout around the three deepest stages, in prediction too: the mean
over random networks is the answer, their variance its uncertainty.

Numbers are those of the authors' prototxts (alexgkendall/SegNet-Tutorial):
ceil-mode pools, biases also before a norm (the paper's SegNet-Basic has none:
`use_bias=False`), He's initialiser, norms that begin at a shift of 0.001.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxseg.backbones.vgg import VGG
from jaxseg.errors import UserError
from jaxseg.layers.conv import Conv, ConvNormAct, kaiming_fan_in
from jaxseg.layers.lrn import local_response_norm
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import max_pool_with_indices, max_unpool
from jaxseg.types import Images, Outputs

# The norm of SegNet's Caffe, DeconvNet's too. The epsilon is safe with any
# `dtype`: variances are computed in float32, two passes, and there
# epsilon ** -1.5, the largest factor of the gradient, is 3e13; a channel that
# is constant over the batch gets the shift, and no gradient.
CAFFE_NORM = functools.partial(
  BatchNorm, epsilon=1e-9, bias_init=nn.initializers.constant(0.001)
)


def unpool(
  y: Float[Array, "n h2 w2 c"], x: Float[Array, "n h w c"], ceil_mode: bool
) -> Float[Array, "n h w c"]:
  """Puts each value of `y` where `x`, when pooled, had its maximum."""
  _, indices = max_pool_with_indices(x, 2, ceil_mode=ceil_mode)
  height, width = x.shape[1:3]
  return max_unpool(y, indices, (height, width), window=2)


def require_pooling_vgg(backbone: nn.Module) -> None:
  """Refuses a backbone that does not halve its map by maxima five times."""
  if (
    not isinstance(backbone, VGG)
    or backbone.output_stride != 32
    or backbone.pool_window != 2
  ):
    raise UserError(
      f"model.backbone is a {type(backbone).__name__} that lacks maxima to "
      "unpool by; expected a VGG of output_stride=32 and pool_window=2, such "
      "as vgg16_bn"
    )


class SegNet(nn.Module):
  """`[n, h, w, 3]` -> `logits` `[n, h, w, num_classes]`.

  Attributes:
    backbone: a VGG; the decoder has its widths and depths, backwards.
    dropout_stages: those whose decoder ends in dropout; the backbone's own
      field drops out behind its pools.
    dropout_rate: of the decoder.
  """

  num_classes: int
  backbone: nn.Module
  dropout_stages: tuple[int, ...] = ()
  dropout_rate: float = 0.5
  norm: Any = CAFFE_NORM
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    require_pooling_vgg(self.backbone)
    conv = functools.partial(
      ConvNormAct,
      use_bias=True,
      norm=self.norm,
      kernel_init=kaiming_fan_in,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    features = self.backbone(image, train=train)
    x = features["c5"]
    for s in (5, 4, 3, 2, 1):
      encoded = features[f"conv{s}"]
      x = unpool(x, encoded, self.backbone.ceil_mode)
      for b in range(self.backbone.stage_sizes[s - 1], 1, -1):
        x = conv(encoded.shape[-1], name=f"conv{s}_{b}_d")(x, train=train)
      if s == 1:
        break
      # The last of a stage has the features of the next.
      width = features[f"conv{s - 1}"].shape[-1]
      x = conv(width, name=f"conv{s}_1_d")(x, train=train)
      if s in self.dropout_stages:
        x = nn.Dropout(self.dropout_rate, name=f"dropout{s}_d")(
          x, deterministic=not train
        )
    x = Conv(self.num_classes, kernel_init=kaiming_fan_in, name="classifier")(x)
    return {"logits": x.astype(jnp.float32)}


class SegNetBasic(nn.Module):
  """`[n, h, w, 3]`, colours 0..255, -> `logits` `[n, h, w, num_classes]`.

  Attributes:
    features: of every convolution.
    kernel_size: of every convolution.
    stages: pools, and unpoolings.
    use_bias: of the convolutions before norms.
  """

  num_classes: int
  features: int = 64
  kernel_size: int = 7
  stages: int = 4
  use_bias: bool = True
  norm: Any = CAFFE_NORM
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    conv = functools.partial(
      ConvNormAct,
      self.features,
      self.kernel_size,
      use_bias=self.use_bias,
      norm=self.norm,
      kernel_init=kaiming_fan_in,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    x = local_response_norm(image, 5, alpha=1e-4, beta=0.75)
    encoded = []
    for s in range(1, self.stages + 1):
      x = conv(name=f"conv{s}")(x, train=train)
      encoded.append(x)
      x, _ = max_pool_with_indices(x, 2, ceil_mode=True)
    for s in range(self.stages, 0, -1):
      x = unpool(x, encoded[s - 1], ceil_mode=True)
      x = conv(act=None, name=f"conv{s}_d")(x, train=train)
    x = Conv(
      self.num_classes, 1, kernel_init=kaiming_fan_in, name="classifier"
    )(x)
    return {"logits": x.astype(jnp.float32)}


def monte_carlo(
  model: nn.Module,
  variables: Any,
  image: Images,
  *,
  key: jax.Array,
  samples: int,
  at_once: int = 4,
) -> tuple[Float[Array, "n h w k"], Float[Array, "n h w k"]]:
  """Mean and variance of the class probabilities over dropout's networks.

  Dropout is on, norms use their running statistics. What precedes the first
  dropout is the same in all samples of a group, and is computed once for it.
  Groups are merged as they come (Chan et al. 1979), so that no more than one
  of them is kept.

  Args:
    model: Bayesian SegNet, or any network with dropout.
    variables: its variables.
    image: normalised images.
    key: the samples are drawn with keys split from it.
    samples: networks to draw; the authors' scripts draw some 40.
    at_once: samples computed side by side, by `vmap`; memory grows with it.
      The largest number up to this that divides `samples` is taken.

  Returns:
    `[n, h, w, k]` means, which add up to 1 over k, and variances (1 / n).
  """

  def probabilities(key):
    with nn.intercept_methods(_with_running_statistics):
      outputs = model.apply(variables, image, train=True, rngs={"dropout": key})
    return jax.nn.softmax(outputs["logits"])

  group = next(g for g in range(at_once, 0, -1) if samples % g == 0)

  def merge(carry, keys):
    count, mean, spread = carry
    drawn = jax.vmap(probabilities)(keys)
    here = jnp.mean(drawn, axis=0)
    step = here - mean
    total = count + group
    mean += step * (group / total)
    spread += jnp.sum(jnp.square(drawn - here), axis=0)
    spread += jnp.square(step) * (count * group / total)
    return (total, mean, spread), None

  keys = jax.random.split(key, samples).reshape(-1, group)
  zeros = jnp.zeros_like(jax.eval_shape(probabilities, key))
  start = (jnp.zeros(()), zeros, zeros)
  (_, mean, spread), _ = jax.lax.scan(merge, start, keys)
  return mean, spread / samples


def _with_running_statistics(next_function, args, kwargs, context):
  """An interceptor under which every BatchNorm does as in evaluation."""
  if isinstance(context.module, BatchNorm) and "train" in kwargs:
    kwargs = {**kwargs, "train": False}
  return next_function(*args, **kwargs)


BACKBONE = {
  "name": "vgg16_bn",
  "ceil_mode": True,
  "kernel_init": kaiming_fan_in,
  "norm": CAFFE_NORM,
}

BayesianSegNet = functools.partial(SegNet, dropout_stages=(3, 4, 5))
BAYESIAN_BACKBONE = {**BACKBONE, "dropout_stages": (3, 4, 5)}
