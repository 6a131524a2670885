"""DeconvNet (Noh, Hong & Han 2015, arXiv:1505.04366).

The idea (Fig. 2): VGG-16 down to a single vector, and its mirror image up
again: unpooling puts values back where the encoder's maxima had been,
deconvolution fills in between them. It sees one box of an image at a time,
224x224, and the answers for many boxes are combined
(`jaxseg.evaluation.proposals`); applied to a larger image it is as
convolutional as VGG's dense layers are.

Numbers are those of the authors' prototxts (HyeonwooNoh/DeconvNet): all 29
convolutions and deconvolutions but the last have a bias and a norm, whose
shift begins at 0.001; no dropout; deconvolutions and scores begin normal with
deviation 0.01. 251,805,653 parameters at 21 classes.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.backbones.vgg import require_pooling_vgg
from jaxseg.layers.caffe_norm import CAFFE_NORM
from jaxseg.layers.conv import Conv, ConvNormAct
from jaxseg.layers.transposed import ConvTranspose
from jaxseg.layers.unpool import unpool
from jaxseg.types import Images, Outputs


class DeconvNet(nn.Module):
  """`[n, h, w, 3]` -> `logits` `[n, h, w, num_classes]`.

  An image whose fifth pool is smaller than fc6's kernel (below 193 pixels,
  with the paper's 7) is filled up with the mean colour, bottom and right.

  Attributes:
    backbone: a VGG; the deconvolutions have its widths and depths, backwards.
    fc_features: of fc6 and fc7 (SegNet's benchmark: 1024).
    fc_kernel: side of fc6 and of the deconvolution that undoes it.
    init_deviation: of the normal deconvolutions and scores at first; as small
      as the paper's it makes Adam's steps large beside them.
  """

  num_classes: int
  backbone: nn.Module
  fc_features: int = 4096
  fc_kernel: int = 7
  init_deviation: float = 0.01
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
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    normal = nn.initializers.normal(self.init_deviation)
    deconv = functools.partial(conv, conv=ConvTranspose, kernel_init=normal)
    features = self.backbone(self._large_enough(image), train=train)
    x = features["c5"]
    width = x.shape[-1]
    valid = ((0, 0), (0, 0))
    x = conv(self.fc_features, self.fc_kernel, padding=valid, name="fc6")(
      x, train=train
    )
    x = conv(self.fc_features, 1, name="fc7")(x, train=train)
    x = deconv(width, self.fc_kernel, name="fc6_deconv")(x, train=train)
    for s in (5, 4, 3, 2, 1):
      encoded = features[f"conv{s}"]
      x = unpool(x, encoded, self.backbone.ceil_mode)
      depth = self.backbone.stage_sizes[s - 1]
      for b in range(1, depth + 1):
        # The last of a stage has the features of the next.
        like = features[f"conv{s - 1}"] if b == depth and s > 1 else encoded
        x = deconv(like.shape[-1], 3, padding=1, name=f"deconv{s}_{b}")(
          x, train=train
        )
    x = Conv(self.num_classes, 1, kernel_init=normal, name="score")(x)
    height, width = image.shape[1:3]
    return {"logits": x[:, :height, :width].astype(jnp.float32)}

  def _large_enough(self, image: jax.Array) -> jax.Array:
    """Fills up an image until its fifth pool holds fc6's kernel once."""
    least = 32 * self.fc_kernel
    if self.backbone.ceil_mode:
      least -= 31  # A last row of one pixel still makes a cell.
    missing = [(0, max(least - side, 0)) for side in image.shape[1:3]]
    return jnp.pad(image, ((0, 0), *missing, (0, 0)))


BACKBONE = {"name": "vgg16_bn", "ceil_mode": True, "norm": CAFFE_NORM}
