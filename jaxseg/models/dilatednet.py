"""DilatedNet (Yu & Koltun 2016, arXiv:1511.07122).

The idea (Sec. 2 to 4): VGG-16 whose last two pools are gone, the convolutions
behind them dilated instead (Fig. 1), gives a map of class scores at stride 8;
a context module of dilated 3x3 convolutions then looks at ever larger
surroundings of each score without losing resolution (Table 1). It begins as
the identity, so that it can only improve on the front end.

Numbers are those of the authors' code (fyu/dilation): no convolution of the
front end pads, the image is mirrored at its borders instead, by 186 pixels;
score i answers for pixel 8 i, and scores between are interpolated. Contexts
by number of layers: 8 for VOC and CamVid, 7 for KITTI, 10 for Cityscapes.
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
from jaxseg.layers.resize import zoom_bilinear
from jaxseg.types import Images, Outputs

# Dilations of the 3x3 layers, by the number of layers with the last, 1x1.
DILATIONS = {
  7: (1, 1, 2, 4, 8, 1),
  8: (1, 1, 2, 4, 8, 16, 1),
  10: (1, 1, 2, 4, 8, 16, 32, 64, 1),
}
# Features of the 3x3 layers, in multiples of the classes.
MULTIPLIERS = {
  "basic": {layers: (1,) * (layers - 1) for layers in DILATIONS},
  "large": {8: (2, 2, 4, 8, 16, 32, 32)},
}
STRIDE = 8


def identity_init(
  classes: int, deviation: float = 0.0
) -> Callable[..., jax.Array]:
  """Initialises a kernel that hands each class on (Eq. 4 and 5).

  Features come in `classes` groups. At the centre tap a feature reads those
  of its own group, classes / features of each: from one score map to another,
  however wide the layers between, this is the identity. What remains is
  normal with `deviation` (0 in the basic module).
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


class Context(nn.Module):
  """Dilated 3x3 convolutions and a 1x1, from C score maps to C score maps.

  Attributes:
    dilations: of the 3x3 layers.
    multipliers: their features, in multiples of C.
  """

  dilations: tuple[int, ...]
  multipliers: tuple[int, ...]
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w k"], *, train: bool
  ) -> Float[Array, "n h w k"]:
    del train  # The same in training and evaluation.
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
  """`[n, h, w, 3]` -> `logits` `[n, h, w, num_classes]`.

  Attributes:
    backbone: a VGG at output stride 8 that pads nothing.
    features: of fc6 and fc7.
    kernel_size: of fc6, which is dilated by 4.
    context: "none" (the front end alone), "basic" or "large".
    context_layers: a key of `DILATIONS`.
    norm: of the backbone, if it normalises.
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
    """The context module that the fields name."""
    if self.context == "none":
      return None
    if self.context not in MULTIPLIERS:
      raise unknown_name("model.context", self.context, ("none", *MULTIPLIERS))
    multipliers = MULTIPLIERS[self.context]
    if self.context_layers not in multipliers:
      raise UserError(
        f"model.context_layers={self.context_layers}: the {self.context} "
        f"context has {' or '.join(map(str, multipliers))} layers"
      )
    return Context(
      DILATIONS[self.context_layers],
      multipliers[self.context_layers],
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="context",
    )

  def _mirrored(self, image: jax.Array) -> jax.Array:
    """Mirrors an image at its borders, again and again if it is small.

    Score i then sees as many pixels before pixel 8 i as the front end loses
    on each side, and the last pixel has a score on it or behind it.
    """
    margin = self.margin()
    for axis in (1, 2):
      size = image.shape[axis]
      scores = -(-(size - 1) // STRIDE) + 1
      after = STRIDE * scores + margin - size
      index = np.pad(np.arange(size), (margin, after), mode="reflect")
      image = jnp.take(image, index, axis=axis)
    return image

  def margin(self) -> int:
    """Pixels lost on each side of the image: 186 for VGG-16 and fc6 7x7."""
    vgg = self.backbone
    if (
      not isinstance(vgg, VGG)
      or (vgg.padding, vgg.pad_inner, vgg.dense_pools) != (0, False, False)
      or (vgg.pool_window, vgg.output_stride) != (2, STRIDE)
    ):
      raise UserError(
        f"model.backbone is a {type(vgg).__name__} that is no front end; "
        "expected a VGG with output_stride=8, padding=0, pad_inner=False and "
        "dense_pools=False, such as vgg16 with the paper's fields"
      )
    # Spacing of the taps of each group, in pixels of the image.
    spacing = (1, 2, 4, 8, 16)
    lost = sum(n * s for n, s in zip(vgg.stage_sizes, spacing, strict=True))
    return lost + 2 * (self.kernel_size - 1) * STRIDE


BACKBONE = {
  "name": "vgg16",
  "padding": 0,
  "pad_inner": False,
  "dense_pools": False,
  "output_stride": STRIDE,
}
