"""SegNet, SegNet-Basic and Bayesian SegNet.

SegNet (Badrinarayanan, Kendall & Cipolla 2017, arXiv:1511.00561). The idea
(Fig. 2 and 3): the encoder is VGG-16 without its dense layers, and the decoder
mirrors it. Unpooling puts each value back at the position of the encoder's
maximum, which keeps edges in place and needs no parameters. The last
convolution of the decoder is the classifier.

SegNet-Basic (Sec. 3.3): local response normalisation of the image, four 7x7
convolutions of 64 features in the encoder, and four without ReLU in the
decoder.

Bayesian SegNet (Kendall, Badrinarayanan & Cipolla 2015, arXiv:1511.02680,
Fig. 1): dropout around the three deepest stages, at test time as well. The
mean over the sampled networks is the prediction, and their variance its
uncertainty (`jaxseg.layers.monte_carlo`).

Numbers are those of the authors' prototxts (alexgkendall/SegNet-Tutorial):
ceil-mode pools, biases before norms as well (the paper's SegNet-Basic has
none: `use_bias=False`), He's initialiser, norms whose shift is initialised to
0.001.
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
  """Maps `[n, h, w, 3]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: VGG; the decoder mirrors its widths and depths.
    dropout_stages: Stages whose decoder ends in dropout. The backbone's field
      of this name adds dropout after its pools.
    dropout_rate: Dropout rate of the decoder.
    norm: Factory of the normalisation layers.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
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
      # The last layer of a stage has the features of the next stage.
      width = features[f"conv{s - 1}"].shape[-1]
      x = conv(width, name=f"conv{s}_1_d")(x, train=train)
      if s in self.dropout_stages:
        x = nn.Dropout(self.dropout_rate, name=f"dropout{s}_d")(
          x, deterministic=not train
        )
    x = Conv(
      self.num_classes,
      3,
      kernel_init=kaiming_fan_in,
      param_dtype=self.param_dtype,
      name="classifier",
    )(x)
    return {"logits": x.astype(jnp.float32)}


class SegNetBasic(nn.Module):
  """Maps `[n, h, w, 3]` to `logits` `[n, h, w, num_classes]`.

  Images have colours 0 to 255, which the local response normalisation expects.

  Attributes:
    num_classes: Number of classes.
    features: Features of every convolution.
    kernel_size: Kernel size of every convolution.
    stages: Number of poolings, and of unpoolings.
    use_bias: Whether convolutions before norms have a bias.
    norm: Factory of the normalisation layers.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
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
      self.num_classes,
      1,
      kernel_init=kaiming_fan_in,
      param_dtype=self.param_dtype,
      name="classifier",
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
