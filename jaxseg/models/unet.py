"""U-Net (Ronneberger, Fischer & Brox 2015, arXiv:1505.04597).

The idea (Fig. 1): a contracting path that sees what is there, an expanding
path that says where, and at every level a skip that hands the fine map across
to be concatenated with the coarse one, enlarged. Convolutions are not padded,
so that 572 pixels become 388 (n = 16 m + 12 become n - 184); what the image
lacks around it is its own mirror image (Fig. 2), and large images are done in
tiles (`overlap_tile`).

Fields choose among the forms that are about:

- the figure's: the default. 31,030,658 parameters for 1 channel, 2 classes;
- `RELEASED`: the authors' Caffe network, as ports of phseg_v5.prototxt agree:
  ReLU after each up-convolution, the enlarged map first in the concatenation,
  a last up-convolution that keeps its 128 features; 31,100,354 parameters;
- `SAME`: milesial/Pytorch-UNet, the form most people mean. Padded, batch
  normalisation (pass `norm="batch"`), no dropout; with `upsample="bilinear"`
  resizing instead of up-convolution, and half the features at the bottom;
- `upsample="bilinear_conv"`: mmsegmentation's UNet-S5-D16, which halves the
  features by a 1x1 convolution after resizing.

With another network as the contracting path: `unet_backbone.py`.
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
from jaxseg.layers.resize import resize_bilinear
from jaxseg.layers.transposed import ConvTranspose
from jaxseg.types import Images, Logits, Outputs

PADDINGS = ("valid", "same")
UPSAMPLES = ("transposed", "bilinear", "bilinear_conv")

# He's rule with the N of the paper's Sec. 3, the inputs of one unit: of a 2x2
# stamp at stride 2 a single tap reaches a pixel.
stamp_init = nn.initializers.variance_scaling(8.0, "fan_in", "normal")


def valid_sizes(wanted: int, depth: int = 4) -> tuple[int, int]:
  """The smallest (input, output) of unpadded convolutions, output >= wanted.

  With d poolings and b pixels at the bottom, 2^d b + 4 (2^d - 1) pixels come
  in and 2^d (b - 4) - 4 (2^d - 1) go out: every pooled map is even.

  Args:
    wanted: pixels along an axis that need scores.
    depth: d.
  """
  scale = 2**depth
  bottom = 8 - (4 - wanted) // scale
  return scale * bottom + 4 * (scale - 1), scale * (bottom - 8) + 4


def mirror(
  image: Images, before: int, sizes: tuple[int, int]
) -> Float[Array, "n h2 w2 c"]:
  """Pads an image by reflection.

  Args:
    image: Images.
    before: Rows above and columns to the left that are added.
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
  """Two 3x3 convolutions, of `middle` and of `features`, and dropout."""

  features: int
  middle: int
  dropout_rate: float
  conv: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = self.conv(self.middle, name="conv1")(x, train=train)
    x = self.conv(self.features, name="conv2")(x, train=train)
    return nn.Dropout(self.dropout_rate, name="dropout")(
      x, deterministic=not train
    )


class UNet(nn.Module):
  """`[n, h, w, c]` -> `logits` `[n, h, w, num_classes]`.

  Attributes:
    features: of each level, the finest first; there are as many poolings as
      levels but one.
    padding: "valid" (the paper's) or "same".
    mirrored: with "valid", continue the image by reflection, so that the
      logits have its size; False is Fig. 1 itself, 572 -> 388.
    upsample: "transposed" (2x2 at stride 2), "bilinear" (align_corners, keeps
      the features; the convolutions of the level above halve them instead) or
      "bilinear_conv" (half-pixel centres, then a 1x1 convolution).
    up_features: of the up-convolution to each level but the last, the finest
      first; () = the features of that level.
    act_upsampled: a ReLU after each up-convolution.
    skip_first: concatenate the skip before the enlarged map.
    dropout_levels: from the finest, 1, those whose contracting half ends in
      dropout.
    dropout_rate: there.
    norm: after each 3x3 convolution, which then has no bias.
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
      # What the convolutions take away at the top and on the left.
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
    """The left half of the figure: the map of each level, finest first."""
    block = self._block(conv)
    maps = []
    for level, width in enumerate(self.features, start=1):
      if maps:
        x = max_pool(maps[-1], 2)
      if level == len(self.features) and self.upsample == "bilinear":
        # Resizing halves no features, so the bottom does not double them.
        width = self.features[-2]
      drop = level in self.dropout_levels
      rate = self.dropout_rate if drop else 0.0
      x = block(width, width, dropout_rate=rate, name=f"down{level}")(
        x, train=train
      )
      maps.append(x)
    return maps

  def _expand(self, maps, conv, *, train: bool) -> jax.Array:
    """The right half."""
    block = self._block(conv)
    *skips, x = maps
    for level in range(len(skips), 0, -1):
      skip, width = skips[level - 1], self.features[level - 1]
      x = self._enlarge(x, level, conv, train=train)
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
      Block, conv=functools.partial(conv, padding=padding)
    )

  def _enlarge(self, x, level: int, conv, *, train: bool) -> jax.Array:
    """To twice the size, before the skip of `level` comes in."""
    width = (self.up_features or self.features)[level - 1]
    size = (2 * x.shape[1], 2 * x.shape[2])
    if self.upsample == "bilinear":
      return resize_bilinear(x, size, align_corners=True)
    if self.upsample == "bilinear_conv":
      x = resize_bilinear(x, size, align_corners=False)
      return conv(width, 1, name=f"upsample{level}")(x, train=train)
    x = ConvTranspose(
      width,
      2,
      strides=2,
      kernel_init=stamp_init,
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
        f"unet: the image is {sides[0]}x{sides[1]}; with {depth} poolings "
        f"expected sides of {2**depth} pixels or more"
      )
    if self.padding == "valid" and not self.mirrored:
      for side in sides:
        smaller = valid_sizes(side - valid_margin(depth), depth)
        if smaller[0] != side:
          raise UserError(
            f"unet: the image is {sides[0]}x{sides[1]}; without mirroring each "
            f"side is 2^{depth} m + {4 * (2**depth - 1)} pixels, such as "
            f"{smaller[0]}, or set mirrored=True"
          )


def valid_margin(depth: int = 4) -> int:
  """Pixels that the unpadded convolutions take from an axis: 184."""
  taken, given = valid_sizes(1, depth)
  return taken - given


def overlap_tile(
  model: UNet, variables: Any, image: Images, *, tile: int = 388
) -> Logits:
  """Scores of an image of any size, tile by tile, without seams (Fig. 2).

  Each tile is computed from its own pixels and a margin around them, mirrored
  only at the border of the image. Tiles whose side is a multiple of all the
  poolings together (16) give what the whole image would give at once; with
  the paper's 388 pooling cells lie otherwise in each tile.

  Args:
    model: a `UNet` with `padding="valid"`.
    variables: its variables.
    image: images.
    tile: side of the tiles; the next size that the network can give is taken.
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


RELEASED = {
  "up_features": (128, 128, 256, 512),
  "act_upsampled": True,
  "skip_first": False,
}
SAME = {"padding": "same", "dropout_levels": ()}
