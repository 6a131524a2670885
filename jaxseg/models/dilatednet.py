"""DilatedNet (Yu & Koltun 2016, arXiv:1511.07122).

The idea (Sec. 2 to 4): the front end is VGG-16 without its last two pools,
with dilated convolutions after them (Fig. 1); its class scores have stride 8.
A context module of dilated 3x3 convolutions then enlarges the receptive field
of each score without losing resolution (Table 1). The module is initialised to
the identity, so that training starts from the front end's output.

Numbers are those of the authors' code (fyu/dilation). No convolution of the
front end pads; instead the image is mirrored at its borders, by 186 pixels.
Score i belongs to pixel 8 i, and scores in between are interpolated. The
context has 8 layers for VOC and CamVid, 7 for KITTI and 10 for Cityscapes.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from jaxseg.backbones.vgg import VGG
from jaxseg.errors import UserError, unknown_name
from jaxseg.layers.conv import Conv
from jaxseg.layers.dense_conv import DenseConvHead
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.padding import reflect_pad
from jaxseg.layers.resize import zoom_bilinear
from jaxseg.types import Images, Outputs

# Dilations of the 3x3 layers, keyed by the number of layers. The number
# includes the last layer, which is 1x1.
DILATIONS = {
  7: (1, 1, 2, 4, 8, 1),
  8: (1, 1, 2, 4, 8, 16, 1),
  10: (1, 1, 2, 4, 8, 16, 32, 64, 1),
}
# Features of the 3x3 layers, as multiples of the number of classes.
MULTIPLIERS = {
  "basic": {layers: (1,) * (layers - 1) for layers in DILATIONS},
  "large": {8: (2, 2, 4, 8, 16, 32, 32)},
}
STRIDE = 8


class Context(nn.Module):
  """Dilated 3x3 convolutions and a 1x1 convolution on K score maps (Table 1).

  Maps `[n, h, w, k]` to `[n, h, w, k]`.

  Attributes:
    dilations: Dilations of the 3x3 layers.
    multipliers: Features of the 3x3 layers, as multiples of K.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  dilations: tuple[int, ...]
  multipliers: tuple[int, ...]
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w k"], *, train: bool
  ) -> Float[Array, "n h w k"]:
    del train  # Training and evaluation are the same.
    classes = x.shape[-1]
    large = max(self.multipliers) > 1
    conv = functools.partial(Conv, param_dtype=self.param_dtype)
    for i, (dilation, multiplier) in enumerate(
      zip(self.dilations, self.multipliers, strict=True), start=1
    ):
      deviation = 0.01 / (multiplier if i > 2 else 1)
      x = conv(
        multiplier * classes,
        3,
        dilation=dilation,
        dtype=self.dtype,
        kernel_init=identity_init(classes, deviation if large else 0.0),
        name=f"conv{i}",
      )(x)
      x = nn.relu(x)
    init = identity_init(classes, 0.01 if large else 0.0)
    return conv(classes, 1, kernel_init=init, name="score")(x)


class DilatedNet(nn.Module):
  """Maps `[n, h, w, 3]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: VGG at output stride 8 without padding.
    features: Features of fc6 and fc7.
    kernel_size: Kernel size of fc6, whose dilation is 4.
    dropout_rate: Dropout rate after fc6 and fc7.
    context: Context module: "none" (front end only), "basic" or "large".
    context_layers: Number of context layers, a key of `DILATIONS`.
    norm: Normalisation that `models.create` passes on to the backbone; the
      head has none.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  features: int = 4096
  kernel_size: int = 7
  dropout_rate: float = 0.5
  context: str = "basic"
  context_layers: int = 8
  norm: Any = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    context = self._context()
    height, width = image.shape[1:3]
    x = self._mirrored(image)
    x = self.backbone(x, train=train)["c5"]
    x = DenseConvHead(
      features=self.features,
      kernel_size=self.kernel_size,
      dilation=4,
      dropout_rate=self.dropout_rate,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="head",
    )(x, train=train)
    x = Conv(
      self.num_classes,
      1,
      kernel_init=nn.initializers.normal(0.001),
      param_dtype=self.param_dtype,
      name="score",
    )(x)
    if context is not None:
      x = context(x, train=train)
    logits = zoom_bilinear(x.astype(jnp.float32), STRIDE, (height, width))
    return {"logits": logits}

  def _context(self) -> Context | None:
    """Returns the context module, or None for the front end alone."""
    if self.context == "none":
      return None
    if self.context not in MULTIPLIERS:
      raise unknown_name("model.context", self.context, ("none", *MULTIPLIERS))
    multipliers = MULTIPLIERS[self.context]
    if self.context_layers not in multipliers:
      raise UserError(
        f"model.context_layers={self.context_layers}: expected "
        f"{' or '.join(map(str, multipliers))} layers for "
        f"model.context={self.context}"
      )
    return Context(
      DILATIONS[self.context_layers],
      multipliers[self.context_layers],
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="context",
    )

  def _mirrored(self, image: jax.Array) -> jax.Array:
    """Pads an image by reflection, repeatedly if it is small.

    `margin` pixels, which the front end removes, are added above and on the
    left, so that score i belongs to pixel 8 i. The bottom and right are padded
    so that the last score lies on or beyond the last pixel.
    """
    margin = self.margin()
    padding = []
    for size in image.shape[1:3]:
      scores = -(-(size - 1) // STRIDE) + 1
      padding.append((margin, STRIDE * scores + margin - size))
    return reflect_pad(image, tuple(padding))

  def margin(self) -> int:
    """Returns the pixels removed on each side: 186 for VGG-16 and fc6 7x7."""
    vgg = self.backbone
    if (
      not isinstance(vgg, VGG)
      or (vgg.padding, vgg.pad_inner, vgg.dense_pools) != (0, False, False)
      or (vgg.pool_window, vgg.output_stride) != (2, STRIDE)
    ):
      raise UserError(
        f"model.backbone is a {type(vgg).__name__} that cannot be DilatedNet's "
        "front end; expected a VGG with output_stride=8, padding=0, "
        "pad_inner=False, dense_pools=False and pool_window=2, chosen by a "
        "word after the colon, as in "
        "--config=configs/dilatednet.py:camvid,vgg16"
      )
    # Distance between the taps of each group of convolutions, in image pixels.
    spacing = (1, 2, 4, 8, 16)
    lost = sum(n * s for n, s in zip(vgg.stage_sizes, spacing, strict=True))
    return lost + 2 * (self.kernel_size - 1) * STRIDE


def identity_init(
  classes: int, deviation: float = 0.0
) -> Callable[..., jax.Array]:
  """Returns an initialiser of kernels that pass each class on (Eq. 4 and 5).

  Features form `classes` groups. At the centre tap a feature reads the inputs
  of its own group, each with weight classes / features. From one score map to
  the next this is the identity, whatever the width of the layers in between.
  All other weights are drawn from N(0, deviation) (0 in the basic module).

  Args:
    classes: Number of classes.
    deviation: Standard deviation of the weights outside the identity.
  """

  def init(key, shape, dtype=jnp.float32):
    height, width, inputs, features = shape
    reads = (
      np.arange(inputs)[:, None] * classes // inputs
      == np.arange(features) * classes // features
    )
    kernel = deviation * jax.random.normal(key, shape, dtype)
    centre = kernel[height // 2, width // 2]
    centre = jnp.where(reads, jnp.asarray(classes / features, dtype), centre)
    return kernel.at[height // 2, width // 2].set(centre)

  return init


BACKBONE = {
  "name": "vgg16",
  "padding": 0,
  "pad_inner": False,
  "dense_pools": False,
  "output_stride": STRIDE,
}
