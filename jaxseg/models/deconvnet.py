"""DeconvNet (Noh, Hong & Han 2015, arXiv:1505.04366).

The idea (Fig. 2): VGG-16 reduces the image to a single vector, and its mirror
image expands the vector again. Unpooling puts values back at the positions of
the encoder's maxima, and deconvolutions densify the result. The paper applies
the network to object proposals of 224x224 pixels and combines the outputs
(`jaxseg.evaluation.proposals`). It is also fully convolutional, so larger
images work as well.

Numbers are those of the authors' prototxts (HyeonwooNoh/DeconvNet). All 29
convolutions and deconvolutions before the score layer have a bias and a norm
whose shift is initialised to 0.001. There is no dropout. Deconvolutions and
scores are initialised from N(0, 0.01). 251,805,653 parameters with 21 classes.
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
  """Maps `[n, h, w, 3]` to `logits` `[n, h, w, num_classes]`.

  The map of the fifth pool must be at least as large as fc6's kernel. Smaller
  images (below 193 pixels with the paper's 7x7 kernel) are zero-padded at the
  bottom and right; zero is the mean colour.

  Attributes:
    num_classes: Number of classes.
    backbone: VGG; the decoder mirrors its widths and depths.
    fc_features: Features of fc6 and fc7; 1024 in SegNet's benchmark.
    fc_kernel: Kernel size of fc6 and of the deconvolution that mirrors it.
    init_deviation: Standard deviation of the initial deconvolutions and scores.
      With the paper's 0.01, Adam's steps are large relative to the weights.
    norm: Factory of the normalisation layers.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
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
    unpadded = ((0, 0), (0, 0))
    x = conv(self.fc_features, self.fc_kernel, padding=unpadded, name="fc6")(
      x, train=train
    )
    x = conv(self.fc_features, 1, name="fc7")(x, train=train)
    x = deconv(width, self.fc_kernel, name="fc6_deconv")(x, train=train)
    for s in (5, 4, 3, 2, 1):
      encoded = features[f"conv{s}"]
      x = unpool(x, encoded, self.backbone.ceil_mode)
      width = encoded.shape[-1]
      depth = self.backbone.stage_sizes[s - 1]
      for b in range(1, depth + 1):
        if b == depth and s > 1:
          # The last layer of a stage has the features of the next stage.
          width = features[f"conv{s - 1}"].shape[-1]
        x = deconv(width, 3, padding=1, name=f"deconv{s}_{b}")(x, train=train)
    x = Conv(
      self.num_classes,
      1,
      kernel_init=normal,
      param_dtype=self.param_dtype,
      name="score",
    )(x)
    height, width = image.shape[1:3]
    return {"logits": x[:, :height, :width].astype(jnp.float32)}

  def _large_enough(self, image: jax.Array) -> jax.Array:
    """Zero-pads an image so that its fifth pool has fc6's kernel size."""
    least = 32 * self.fc_kernel
    if self.backbone.ceil_mode:
      least -= 31  # In ceil mode one pixel suffices for the last cell.
    missing = [(0, max(least - side, 0)) for side in image.shape[1:3]]
    return jnp.pad(image, ((0, 0), *missing, (0, 0)))


BACKBONE = {"name": "vgg16_bn", "ceil_mode": True, "norm": CAFFE_NORM}
