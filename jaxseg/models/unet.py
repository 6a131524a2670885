"""U-Net (Ronneberger, Fischer & Brox 2015, arXiv:1505.04597).

The idea (Fig. 1): a contracting path recognises objects, and an expanding path
locates them. At every level a skip concatenates the fine map of the contracting
path with the upsampled coarse map of the expanding path. Convolutions are not
padded, so an input of 572 pixels has an output of 388 (n = 16 m + 12 gives
n - 184). Images are padded by reflection (Fig. 2), and large images are
processed in tiles (`overlap_tile`). The network of Fig. 1 has 31,030,658
parameters for 1 channel and 2 classes.

`VARIANTS` has the authors' released network and milesial/Pytorch-UNet.
`upsample="bilinear_conv"` is the upsampling of mmsegmentation's UNet-S5-D16,
which halves the features by a 1x1 convolution after resizing. With
`upsample="nearest"`, `block_dropout_rate=0.2`, `padding="same"` and
`dropout_levels=()` it is the U-Net of orobix/retina-unet.
`unet_backbone.py` is a U-Net whose contracting path is a backbone.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from jaxseg.errors import UserError, unknown_name
from jaxseg.layers.conv import Conv, ConvNormAct, kaiming_fan_in
from jaxseg.layers.crop import centre_crop, crop_or_pad
from jaxseg.layers.padding import reflect_pad
from jaxseg.layers.pool import max_pool
from jaxseg.layers.resize import resize_bilinear, resize_nearest
from jaxseg.layers.transposed import ConvTranspose
from jaxseg.types import Images, Logits, Outputs

PADDINGS = ("valid", "same")
UPSAMPLES = ("transposed", "bilinear", "bilinear_conv", "nearest")

# He's rule: variance 2 / N, with N inputs of a unit (Sec. 3). With stride 2, a
# single tap of the 2x2 transposed kernel reaches each pixel, so N is a quarter
# of the kernel's fan-in.
up_init = nn.initializers.variance_scaling(8.0, "fan_in", "normal")


def valid_sizes(wanted: int, depth: int = 4) -> tuple[int, int]:
  """Returns the sizes of the smallest input with at least `wanted` logits.

  With d poolings and b pixels at the lowest level, unpadded convolutions map
  2^d b + 4 (2^d - 1) pixels to 2^d (b - 4) - 4 (2^d - 1). At these sizes every
  map that is pooled has an even number of pixels.

  Args:
    wanted: Number of pixels along an axis that need logits.
    depth: Number of poolings d.

  Returns:
    Number of pixels of the input and of the output along the axis.
  """
  scale = 2**depth
  bottom = 8 - (4 - wanted) // scale
  return scale * bottom + 4 * (scale - 1), scale * (bottom - 8) + 4


def mirror(
  image: Images, before: int, sizes: tuple[int, int]
) -> Float[Array, "n h2 w2 c"]:
  """Pads images by reflection to a given size.

  Args:
    image: Images.
    before: Number of rows added above and of columns added on the left.
    sizes: Height and width of the result.
  """
  return reflect_pad(
    image,
    tuple(
      (before, size - before - pixels)
      for size, pixels in zip(sizes, image.shape[1:3], strict=True)
    ),
  )


class Block(nn.Module):
  """Two 3x3 convolutions and dropout: one level of a path (Fig. 1).

  Attributes:
    features: Features of the second convolution.
    middle: Features of the first convolution.
    inner_dropout_rate: Dropout rate between both convolutions.
    dropout_rate: Dropout rate after both convolutions.
    conv: Factory of `ConvNormAct`.
  """

  features: int
  middle: int
  inner_dropout_rate: float
  dropout_rate: float
  conv: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = self.conv(self.middle, name="conv1")(x, train=train)
    x = nn.Dropout(self.inner_dropout_rate, name="inner_dropout")(
      x, deterministic=not train
    )
    x = self.conv(self.features, name="conv2")(x, train=train)
    return nn.Dropout(self.dropout_rate, name="dropout")(
      x, deterministic=not train
    )


class UNet(nn.Module):
  """Maps `[n, h, w, c]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    features: Features of each level, finest first. There is one pooling
      between two levels.
    padding: Padding of the 3x3 convolutions: "valid" (the paper's, none) or
      "same".
    mirrored: Whether "valid" pads the image by reflection, so that the logits
      have the size of the image. False is Fig. 1 itself, 572 to 388 pixels.
    upsample: Upsampling: "transposed" (2x2 kernels with stride 2), "bilinear"
      (aligned corners; the convolutions after it halve the features),
      "bilinear_conv" (half-pixel centres, then a 1x1 convolution) or "nearest"
      (each pixel four times, with the features of the coarser level).
    up_features: Features of the up-convolution to each level but the coarsest,
      finest first; () uses the features of that level.
    act_upsampled: Whether a ReLU follows each up-convolution.
    skip_first: Whether the skip precedes the upsampled map in the
      concatenation.
    dropout_levels: Levels, the finest being 1, whose block in the contracting
      path ends in dropout.
    dropout_rate: Dropout rate of the levels named in `dropout_levels`.
    block_dropout_rate: Dropout rate between the two convolutions of every block
      of both paths; 0, as in the paper, is none.
    norm: Factory of the normalisation layers after the 3x3 convolutions, which
      then have no bias; None, as in the paper, omits them.
    kernel_init: Initialiser of all kernels except those of up-convolutions.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  features: tuple[int, ...] = (64, 128, 256, 512, 1024)
  padding: str = "valid"
  mirrored: bool = True
  upsample: str = "transposed"
  up_features: tuple[int, ...] = ()
  act_upsampled: bool = False
  skip_first: bool = True
  dropout_levels: tuple[int, ...] = (4, 5)
  dropout_rate: float = 0.5
  block_dropout_rate: float = 0.0
  norm: Callable[..., Any] | None = None
  kernel_init: Callable[..., Any] = kaiming_fan_in
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    self._check(image)
    x = image
    if self.padding == "valid" and self.mirrored:
      plan = [valid_sizes(a, len(self.features) - 1) for a in x.shape[1:3]]
      # Pixels that unpadded convolutions remove at the top and on the left.
      margin = (plan[0][0] - plan[0][1]) // 2
      x = mirror(x, margin, (plan[0][0], plan[1][0]))
    conv = functools.partial(
      ConvNormAct,
      norm=self.norm,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    maps = self._contract(x, conv, train=train)
    x = self._expand(maps, conv, train=train)
    logits = Conv(
      self.num_classes,
      1,
      kernel_init=self.kernel_init,
      param_dtype=self.param_dtype,
      name="classifier",
    )(x).astype(jnp.float32)
    if self.mirrored:
      logits = logits[:, : image.shape[1], : image.shape[2]]
    return {"logits": logits}

  def _contract(self, x, conv, *, train: bool) -> list[jax.Array]:
    """Returns the maps of the contracting path, finest first."""
    block = self._block(conv)
    maps = []
    for level, width in enumerate(self.features, start=1):
      if maps:
        x = max_pool(maps[-1], 2)
      if level == len(self.features) and self.upsample == "bilinear":
        # Resizing keeps the features, so the lowest level does not double them.
        width = self.features[-2]
      drop = level in self.dropout_levels
      rate = self.dropout_rate if drop else 0.0
      x = block(width, width, dropout_rate=rate, name=f"down{level}")(
        x, train=train
      )
      maps.append(x)
    return maps

  def _expand(self, maps, conv, *, train: bool) -> jax.Array:
    """Returns the last map of the expanding path."""
    block = self._block(conv)
    *skips, x = maps
    for level in range(len(skips), 0, -1):
      skip, width = skips[level - 1], self.features[level - 1]
      x = self._upsample(x, level, conv, train=train)
      if self.padding == "same":
        x = crop_or_pad(x, skip.shape[1:3])
      else:
        skip = centre_crop(skip, x.shape[1:3])
      x = jnp.concatenate([skip, x] if self.skip_first else [x, skip], axis=-1)
      out = width
      if self.upsample == "bilinear":
        out = self.features[max(level - 2, 0)]
      x = block(out, width, dropout_rate=0.0, name=f"up{level}")(x, train=train)
    return x

  def _block(self, conv) -> Callable[..., nn.Module]:
    padding = None if self.padding == "same" else ((0, 0), (0, 0))
    return functools.partial(
      Block,
      inner_dropout_rate=self.block_dropout_rate,
      conv=functools.partial(conv, padding=padding),
    )

  def _upsample(self, x, level: int, conv, *, train: bool) -> jax.Array:
    """Upsamples by a factor of 2, to the size of `level`."""
    width = (self.up_features or self.features)[level - 1]
    size = (2 * x.shape[1], 2 * x.shape[2])
    if self.upsample == "bilinear":
      return resize_bilinear(x, size, align_corners=True)
    if self.upsample == "nearest":
      return resize_nearest(x, size)
    if self.upsample == "bilinear_conv":
      x = resize_bilinear(x, size, align_corners=False)
      return conv(width, 1, name=f"upsample{level}")(x, train=train)
    x = ConvTranspose(
      width,
      2,
      strides=2,
      kernel_init=up_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=f"upsample{level}",
    )(x)
    return nn.relu(x) if self.act_upsampled else x

  def _check(self, image) -> None:
    if self.padding not in PADDINGS:
      raise unknown_name("model.padding", self.padding, PADDINGS)
    if self.upsample not in UPSAMPLES:
      raise unknown_name("model.upsample", self.upsample, UPSAMPLES)
    depth, sides = len(self.features) - 1, tuple(image.shape[1:3])
    if self.padding == "same" and min(sides) < 2**depth:
      raise UserError(
        f"unet: the image is {sides[0]}x{sides[1]}; {depth} poolings need "
        f"sides of {2**depth} pixels or more"
      )
    if self.padding == "valid" and not self.mirrored:
      for side in sides:
        smaller = valid_sizes(side - valid_margin(depth), depth)
        if smaller[0] != side:
          raise UserError(
            f"unet: the image is {sides[0]}x{sides[1]}; mirrored=False needs "
            f"sides of 2^{depth} m + {4 * (2**depth - 1)} pixels, such as "
            f"{smaller[0]}; use such an image, or set mirrored=True"
          )


def valid_margin(depth: int = 4) -> int:
  """Returns the number of pixels that unpadded convolutions remove (184)."""
  taken, given = valid_sizes(1, depth)
  return taken - given


def overlap_tile(
  model: UNet, variables: Any, image: Images, *, tile: int = 388
) -> Logits:
  """Computes the logits of images of any size, tile by tile (Fig. 2).

  Each tile is computed from its own pixels and a margin of neighbouring pixels,
  which is a reflection only at the border of the image. If the side of a tile
  is a multiple of 2^depth (16), the logits equal those of the whole image at
  once. With the paper's 388 the pooling cells are aligned differently in each
  tile, so the logits differ.

  Args:
    model: `UNet` with `padding="valid"`.
    variables: Variables of the model.
    image: Images.
    tile: Side of the tiles, rounded up to an output size of the network.
  """
  depth = len(model.features) - 1
  taken, given = valid_sizes(tile, depth)
  margin, (h, w) = (taken - given) // 2, image.shape[1:3]
  rows, columns = (-(-side // tile) for side in (h, w))
  padded = mirror(
    image,
    margin,
    ((rows - 1) * tile + taken, (columns - 1) * tile + taken),
  )
  network = model.clone(mirrored=False)

  def one(corner):
    n, c = image.shape[0], image.shape[3]
    part = jax.lax.dynamic_slice(
      padded, (0, corner[0], corner[1], 0), (n, taken, taken, c)
    )
    logits = network.apply(variables, part, train=False)["logits"]
    return logits[:, :tile, :tile]

  corners = np.stack(
    np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1
  ).reshape(-1, 2)
  tiles = jax.lax.map(one, jnp.asarray(corners * tile))
  tiles = tiles.reshape(rows, columns, *tiles.shape[1:])
  tiles = tiles.transpose(2, 0, 3, 1, 4, 5)
  n, k = tiles.shape[0], tiles.shape[-1]
  whole = tiles.reshape(n, rows * tile, columns * tile, k)
  return whole[:, :h, :w]


VARIANTS = {
  # The authors' Caffe network, on which ports of phseg_v5.prototxt agree: a
  # ReLU after each up-convolution, the upsampled map first in the
  # concatenation, and a last up-convolution that keeps its 128 features;
  # 31,100,354 parameters.
  "released": {
    "up_features": (128, 128, 256, 512),
    "act_upsampled": True,
    "skip_first": False,
  },
  # milesial/Pytorch-UNet, the most common form: padded and without dropout.
  # Its batch normalisation is `norm="batch"`. With `upsample="bilinear"` it
  # has half the features at the lowest level.
  "milesial": {"padding": "same", "dropout_levels": ()},
}
