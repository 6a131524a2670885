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
import jax.numpy as jnp

from jaxseg.backbones.vgg import require_pooling_vgg
from jaxseg.layers.caffe_norm import CAFFE_NORM
from jaxseg.layers.conv import Conv, ConvNormAct, kaiming_fan_in
from jaxseg.layers.lrn import local_response_norm
from jaxseg.layers.pool import max_pool
from jaxseg.layers.unpool import unpool
from jaxseg.types import Images, Outputs


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
      x = max_pool(x, 2, ceil_mode=True)
    for s in range(self.stages, 0, -1):
      x = unpool(x, encoded[s - 1], ceil_mode=True)
      x = conv(act=None, name=f"conv{s}_d")(x, train=train)
    x = Conv(
      self.num_classes, 1, kernel_init=kaiming_fan_in, name="classifier"
    )(x)
    return {"logits": x.astype(jnp.float32)}


BACKBONE = {
  "name": "vgg16_bn",
  "ceil_mode": True,
  "kernel_init": kaiming_fan_in,
  "norm": CAFFE_NORM,
}

BayesianSegNet = functools.partial(SegNet, dropout_stages=(3, 4, 5))
BAYESIAN_BACKBONE = {**BACKBONE, "dropout_stages": (3, 4, 5)}
