"""Random augmentation of images and labels, inside the jitted step.

Augmentation is a pure function of (key, image, label), and each example has its
own key. The training step derives it from the seed and the position of the
example in the stream, so the stream is the same on 1 device or 256 and after a
resume, and an image that occurs twice in a batch is augmented twice.

The image is resampled once. A random scale, a crop and a mirroring compose to
one map from crop to image, whose coordinates are computed in integers. The
result equals "resize bilinearly to round(scale * size), then crop or pad" with
half-pixel centres and without antialiasing (torch.nn.functional.interpolate,
cv2.resize), and "nearest-exact" for the label. Scale 1 copies pixels bit for
bit.

Elastic deformation and rotation displace the pixels of the crop before that
map is applied, so the image is still resampled once. The deformation is
U-Net's (Ronneberger et al. 2015, Sec. 3.1): random vectors on a coarse grid,
interpolated bicubically.

Colour jitter follows torchvision's ColorJitter (transforms v2), in the fixed
order brightness, contrast, saturation, hue.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Key, UInt8
import numpy as np

from jaxseg.layers.bilinear import (
  Taps,
  interpolate,
  rational_taps,
  sample_bilinear,
)

# Scales bytes to 0..1. XLA compiles a division by 255 to this product, but an
# eager division is not rewritten; the product gives the same bits in both.
UNIT = np.float32(1 / 255)
# ITU-R 601-2 luma weights, rounded as in torchvision's rgb_to_grayscale.
LUMA = (0.2989, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Random changes of training images.

  Attributes:
    crop: Height and width of the result. If the scaled image is larger, the
      crop lies uniformly inside it; if it is smaller, the image lies uniformly
      inside the crop.
    scale: Bounds of the scale, which is drawn log-uniformly.
    flip: Whether to mirror left-right with probability one half.
    rotation: Largest angle in degrees; the angle about the middle of the crop
      is drawn from [-rotation, rotation].
    elastic_std: Standard deviation of the vectors of the elastic deformation,
      in pixels of the crop.
    elastic_grid: Rows and columns of vectors.
    brightness: Half-width of the interval around 1 that the brightness factor
      is drawn from.
    contrast: Half-width of the interval around 1 that the contrast factor is
      drawn from; contrast is changed about the mean grey of the image.
    saturation: Half-width of the interval around 1 that the saturation factor
      is drawn from.
    hue: Largest change of the HSV hue, in turns.
  """

  crop: tuple[int, int] = (64, 64)
  scale: tuple[float, float] = (1.0, 1.0)
  flip: bool = False
  rotation: float = 0.0
  elastic_std: float = 0.0
  elastic_grid: tuple[int, int] = (3, 3)
  brightness: float = 0.0
  contrast: float = 0.0
  saturation: float = 0.0
  hue: float = 0.0


def augment(
  key: Key[Array, " n"],
  image: UInt8[Array, "n h w 3"],
  label: Integer[Array, "n h w"],
  size: Int[Array, "n 2"],
  *,
  settings: Augmentation,
  mean: tuple[float, float, float],
  ignore_label: int,
) -> tuple[Float[Array, "n ch cw 3"], Int[Array, "n ch cw"]]:
  """Scales, crops, mirrors and recolours each example at random.

  Args:
    key: Random key of each example.
    image: Images, each at the top left of its canvas.
    label: Labels of the images.
    size: Height and width of each image on its canvas.
    settings: The random changes.
    mean: RGB colour in 0..1 of pixels outside the image.
    ignore_label: Label of pixels outside the image.

  Returns:
    Images in 0..1, not yet normalised, and int32 labels.
  """

  def one(key, image, label, size):
    draw = jax.random.uniform(key, (8,))
    low, high = settings.scale
    ratio = low * (high / low) ** draw[0]
    height, width = settings.crop
    mirror = settings.flip & (draw[3] < 0.5)
    rows = _axis(size[0], ratio, height, draw[1], False)
    cols = _axis(size[1], ratio, width, draw[2], mirror)
    if settings.elastic_std or settings.rotation:
      shift = displacement(
        # A stream independent of the draws above.
        jax.random.fold_in(key, 1),
        settings.crop,
        rotation=settings.rotation,
        elastic_std=settings.elastic_std,
        elastic_grid=settings.elastic_grid,
      )
      image, label, inside = _warp(image, label, size, rows, cols, shift)
    else:
      image, inside = _resample(image, rows, cols)
      label = label[rows.nearest][:, cols.nearest]
    image = _jitter(
      image * UNIT,
      inside,
      2 * draw[4:] - 1,
      (
        settings.brightness,
        settings.contrast,
        settings.saturation,
        settings.hue,
      ),
    )
    image = jnp.where(inside[..., None], image, jnp.asarray(mean, jnp.float32))
    return image, jnp.where(inside, label.astype(jnp.int32), ignore_label)

  return jax.vmap(one)(key, image, label, size)


def normalise(
  image: Float[Array, "*n h w c"] | UInt8[Array, "*n h w c"],
  mean: tuple[float, ...],
  std: tuple[float, ...],
  dtype=jnp.float32,
) -> Float[Array, "*n h w c"]:
  """Returns (image - mean) / std of an image in 0..1 or in bytes."""
  if image.dtype == jnp.uint8:
    image = image.astype(jnp.float32) * UNIT
  mean, std = (jnp.asarray(v, jnp.float32) for v in (mean, std))
  return ((image - mean) / std).astype(dtype)


def displacement(
  key: Key[Array, ""],
  crop: tuple[int, int],
  *,
  rotation: float = 0.0,
  elastic_std: float = 0.0,
  elastic_grid: tuple[int, int] = (3, 3),
) -> Float[Array, "ch cw 2"]:
  """Returns how far (down, right) each pixel of a crop is displaced.

  Args:
    key: Key of the example.
    crop: Height and width of the crop.
    rotation: Largest angle, see `augment`.
    elastic_std: Standard deviation of the vectors, see `augment`.
    elastic_grid: Rows and columns of vectors; each vector stands in the middle
      of an equal part of the crop.
  """
  elastic_key, angle_key = jax.random.split(key)
  coarse = elastic_std * jax.random.normal(elastic_key, (*elastic_grid, 2))
  shift = jax.image.resize(coarse, (*crop, 2), "cubic")
  angle = jnp.deg2rad(rotation * jax.random.uniform(angle_key, minval=-1))
  y = (jnp.arange(crop[0]) - (crop[0] - 1) / 2)[:, None]
  x = (jnp.arange(crop[1]) - (crop[1] - 1) / 2)[None, :]
  sine, less = jnp.sin(angle), jnp.cos(angle) - 1
  turned = [less * y - sine * x, sine * y + less * x]
  return shift + jnp.stack(turned, axis=-1)


class _AxisMap(NamedTuple):
  """Maps the pixels of one axis of the crop to the image.

  Attributes:
    inside: Whether a pixel lies inside the scaled image.
    taps: Pixels of the image around its position.
    position: Position in the image, as a float.
    step: Pixels of the image that one pixel of the crop spans; negative if
      the axis is mirrored.
    nearest: Nearest pixel of the image.
  """

  inside: Array
  taps: Taps
  position: Array
  step: Array
  nearest: Array


def _axis(size, ratio, crop: int, draw, mirror) -> _AxisMap:
  """Builds the map of one axis.

  The scaled image has length m = round(ratio * size). Its pixel j has the
  position (j + 1/2) size / m - 1/2 = ((2 j + 1) size - m) / 2 m in the image;
  the fraction on the right is computed exactly.
  """
  scaled = jnp.maximum(jnp.round(ratio * size).astype(jnp.int32), 1)
  slack = scaled - crop
  room = jnp.abs(slack)
  offset = jnp.minimum((draw * (room + 1)).astype(jnp.int32), room)
  j = jnp.arange(crop)
  j = jnp.where(mirror, crop - 1 - j, j) + jnp.sign(slack) * offset
  numerator = (2 * j + 1) * size - scaled
  return _AxisMap(
    inside=(j >= 0) & (j < scaled),
    taps=rational_taps(numerator, 2 * scaled, size),
    position=numerator / (2 * scaled),
    step=jnp.where(mirror, -size, size) / scaled,
    nearest=jnp.clip((2 * j + 1) * size // (2 * scaled), 0, size - 1),
  )


def _resample(image, rows: _AxisMap, cols: _AxisMap):
  """Returns the float32 crop `[ch, cw, c]` and where it shows the image."""
  image = interpolate(image, rows.taps, axis=0)
  image = interpolate(image, cols.taps, axis=1)
  return image, rows.inside[:, None] & cols.inside


def _warp(image, label, size, rows: _AxisMap, cols: _AxisMap, shift):
  """Returns image, label and inside-mask with every pixel moved by `shift`."""
  down = rows.position[:, None] + shift[..., 0] * rows.step
  right = cols.position[None, :] + shift[..., 1] * cols.step
  inside = jnp.ones(shift.shape[:2], bool)
  nearest = []
  for position, side in zip((down, right), size, strict=True):
    # A pixel covers half a unit on either side of its centre.
    inside &= (position >= -0.5) & (position < side - 0.5)
    pixel = jnp.floor(position + 0.5).astype(jnp.int32)
    nearest.append(jnp.clip(pixel, 0, side - 1))
  image = sample_bilinear(image, down, right, border="edge", size=size)
  return image, label[tuple(nearest)], inside


def _mix(a, b, weight):
  return a * (1 - weight) + b * weight


def _jitter(image, inside, draw, widths):
  """Changes brightness, contrast, saturation and hue, in this order.

  Args:
    image: Image in 0..1.
    inside: Mask of the pixels that show the image.
    draw: Four random numbers in -1..1.
    widths: Half-widths of the four intervals that changes are drawn from.
  """
  brightness, contrast, saturation, hue = widths

  def factor(k):
    return jnp.maximum(1 + draw[k] * widths[k], 0)

  if brightness:
    image = jnp.clip(image * factor(0), 0, 1)
  if contrast:
    grey = jnp.sum(_grey(image) * inside[..., None]) / jnp.maximum(
      jnp.sum(inside), 1
    )
    image = jnp.clip(_mix(grey, image, factor(1)), 0, 1)
  if saturation:
    image = jnp.clip(_mix(_grey(image), image, factor(2)), 0, 1)
  if hue:
    image = _turn_hue(image, draw[3] * hue)
  return image


def _grey(image):
  # A matrix product would be rounded to lower precision on accelerators.
  return jnp.sum(image * jnp.asarray(LUMA), axis=-1, keepdims=True)


def _turn_hue(image, turn):
  """Adds `turn` to the HSV hue and keeps value and saturation."""
  r, g, b = (image[..., k] for k in range(3))
  value = jnp.max(image, axis=-1)
  chroma = value - jnp.min(image, axis=-1)
  safe = jnp.where(chroma > 0, chroma, 1)
  sextant = jnp.where(
    value == r,
    (g - b) / safe,
    jnp.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe),
  )

  def channel(n):  # The closed form of the conversion from HSV to RGB.
    k = (n + sextant + 6 * turn) % 6
    return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

  return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)
