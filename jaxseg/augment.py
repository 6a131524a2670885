"""Random augmentation of images and labels, inside the jitted step.

A pure function of (key, image, label): everything random about an example
follows from `fold_in(key, index)`, so the stream is the same in any batch
order, on 1 device or 256, and after a resume.

Geometry is one resampling: a random scale, crop and mirroring compose to one
map from crop to image, whose coordinates are computed in integers. It equals
"resize bilinearly to round(scale * size), then crop or pad" with half-pixel
centres and no antialiasing (torch.nn.functional.interpolate, cv2.resize), and
"nearest-exact" for the label. At scale 1 it copies pixels, bit for bit.

Elastic deformation and rotation move the pixels of the crop before that map is
asked, so that there is one resampling still. The deformation is U-Net's
(Ronneberger et al. 2015, Sec. 3.1): random vectors on a coarse grid, between
them bicubic interpolation.

Colour follows torchvision's ColorJitter (transforms v2), in the fixed order
brightness, contrast, saturation, hue.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Key, UInt8
import numpy as np

# Bytes to 0..1. A division would be compiled to this product anyway, and not
# compiled where it runs eagerly: the same bits everywhere need it spelt out.
UNIT = np.float32(1 / 255)
# ITU-R 601-2 luma, as torchvision's rgb_to_grayscale rounds it.
LUMA = (0.2989, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """How training images change at random; `augment` explains each field."""

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
  key: Key[Array, ""],
  image: UInt8[Array, "n h w 3"],
  label: Integer[Array, "n h w"],
  size: Int[Array, "n 2"],
  index: Int[Array, " n"],
  *,
  crop: tuple[int, int],
  scale: tuple[float, float] = (1.0, 1.0),
  flip: bool = False,
  rotation: float = 0.0,
  elastic_std: float = 0.0,
  elastic_grid: tuple[int, int] = (3, 3),
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
  mean: tuple[float, float, float],
  ignore_label: int,
) -> tuple[Float[Array, "n ch cw 3"], Int[Array, "n ch cw"]]:
  """Scales, crops, mirrors and recolours each example by its own key.

  Args:
    key: of this step; `fold_in(seed key, step)`.
    image: images on the canvas.
    label: their labels.
    size: valid height and width of each, from the top left of the canvas.
    index: data set index of each; what its randomness is keyed by.
    crop: height and width of the result. Where the scaled image is larger
      the crop lies uniformly inside it, where it is smaller the image lies
      uniformly inside the crop.
    scale: bounds of the scale, drawn log-uniformly.
    flip: mirror left-right with probability one half.
    rotation: angle drawn from +- this about the middle of the crop, degrees.
    elastic_std: deviation of the deformation's vectors, in pixels of the crop.
    elastic_grid: rows and columns of vectors.
    brightness: factor drawn from 1 +- this.
    contrast: factor drawn from 1 +- this, about the mean grey of the image.
    saturation: factor drawn from 1 +- this.
    hue: turn of the HSV hue circle drawn from +- this, in turns.
    mean: RGB in 0..1, put outside the image.
    ignore_label: label put outside the image.

  Returns:
    Images in 0..1, not yet normalised, and int32 labels.
  """

  def one(image, label, size, index):
    own_key = jax.random.fold_in(key, index)
    draw = jax.random.uniform(own_key, (8,))
    ratio = scale[0] * (scale[1] / scale[0]) ** draw[0]
    rows = _axis(size[0], ratio, crop[0], draw[1], False)
    cols = _axis(size[1], ratio, crop[1], draw[2], flip & (draw[3] < 0.5))
    if elastic_std or rotation:
      shift = displacement(
        # Another stream than the draws above.
        jax.random.fold_in(own_key, 1),
        crop,
        rotation=rotation,
        elastic_std=elastic_std,
        elastic_grid=elastic_grid,
      )
      image, label, inside = _warp(image, label, size, rows, cols, shift)
    else:
      image, inside = _resample(image, rows, cols)
      label = label[rows["nearest"]][:, cols["nearest"]]
    image = _jitter(
      image * UNIT,
      inside,
      2 * draw[4:] - 1,
      (brightness, contrast, saturation, hue),
    )
    image = jnp.where(inside[..., None], image, jnp.asarray(mean, jnp.float32))
    return image, jnp.where(inside, label.astype(jnp.int32), ignore_label)

  return jax.vmap(one)(image, label, size, index)


def normalise(
  image: Float[Array, "*n h w c"] | UInt8[Array, "*n h w c"],
  mean: tuple[float, ...],
  std: tuple[float, ...],
  dtype=jnp.float32,
) -> Float[Array, "*n h w c"]:
  """(image - mean) / std, of an image in 0..1 or of bytes."""
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
  """How far down and to the right each pixel of a crop looks.

  Args:
    key: of this example.
    crop: height and width.
    rotation: as for `augment`, like all that follow here.
    elastic_std: deviation of the vectors.
    elastic_grid: rows and columns of vectors; each stands in the middle of an
      equal part of the crop.
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


def _axis(size, ratio, crop: int, draw, mirror) -> dict[str, jax.Array]:
  """Where the pixels of one axis of the crop come from.

  In the scaled image of length m = round(ratio * size), pixel j covers source
  coordinate (j + 1/2) size / m - 1/2 = ((2 j + 1) size - m) / 2 m, exactly.
  """
  scaled = jnp.maximum(jnp.round(ratio * size).astype(jnp.int32), 1)
  slack = scaled - crop
  room = jnp.abs(slack)
  offset = jnp.minimum((draw * (room + 1)).astype(jnp.int32), room)
  j = jnp.arange(crop)
  j = jnp.where(mirror, crop - 1 - j, j) + jnp.sign(slack) * offset
  position = (2 * j + 1) * size - scaled
  low = position // (2 * scaled)
  weight = (position % (2 * scaled)) / (2 * scaled)
  last = size - 1
  return {
    "inside": (j >= 0) & (j < scaled),
    "low": jnp.clip(low, 0, last),
    "high": jnp.clip(low + 1, 0, last),
    "weight": weight.astype(jnp.float32),
    "source": position / (2 * scaled),
    "step": jnp.where(mirror, -size, size) / scaled,
    "nearest": jnp.clip((2 * j + 1) * size // (2 * scaled), 0, last),
  }


def _resample(image, rows, cols):
  """Bilinear `[h, w, c] -> [ch, cw, c]` float32, and where the image is."""
  a, b = (image[rows[k]].astype(jnp.float32) for k in ("low", "high"))
  image = _mix(a, b, rows["weight"][:, None, None])
  a, b = (image[:, cols[k]] for k in ("low", "high"))
  image = _mix(a, b, cols["weight"][None, :, None])
  return image, rows["inside"][:, None] & cols["inside"]


def _warp(image, label, size, rows, cols, shift):
  """Image, label, and where they are, with every pixel moved by `shift`."""
  places = []
  for axis, (line, along) in enumerate(((rows, (-1, 1)), (cols, (1, -1)))):
    place = line["source"].reshape(along) + shift[..., axis] * line["step"]
    places.append(place)
  # A pixel covers half a unit on either side of its centre.
  inside = jnp.ones(shift.shape[:2], bool)
  for place, side in zip(places, size, strict=True):
    inside &= (place >= -0.5) & (place < side - 0.5)
  (top, bottom, down), (left, right, across) = (
    _neighbours(place, side) for place, side in zip(places, size, strict=True)
  )
  wide = image.astype(jnp.float32)
  across = across[..., None]
  a = _mix(wide[top, left], wide[top, right], across)
  b = _mix(wide[bottom, left], wide[bottom, right], across)
  nearest = (
    jnp.clip(jnp.floor(place + 0.5).astype(jnp.int32), 0, side - 1)
    for place, side in zip(places, size, strict=True)
  )
  return _mix(a, b, down[..., None]), label[tuple(nearest)], inside


def _neighbours(place, side):
  """The two pixels around each place on an axis, and the second's weight."""
  place = jnp.clip(place, 0, side - 1)
  low = jnp.floor(place).astype(jnp.int32)
  return low, jnp.minimum(low + 1, side - 1), place - low


def _mix(a, b, weight):
  return a * (1 - weight) + b * weight


def _jitter(image, inside, draw, widths):
  """Changes brightness, contrast, saturation, hue; `draw` is in -1..1."""
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
  # Not a matrix product: accelerators round those.
  return jnp.sum(image * jnp.asarray(LUMA), axis=-1, keepdims=True)


def _turn_hue(image, turn):
  """Adds `turn` to the hue in HSV; value and saturation stay."""
  r, g, b = (image[..., k] for k in range(3))
  value = jnp.max(image, axis=-1)
  chroma = value - jnp.min(image, axis=-1)
  safe = jnp.where(chroma > 0, chroma, 1)
  sextant = jnp.where(
    value == r,
    (g - b) / safe,
    jnp.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe),
  )

  def channel(n):  # The closed form of HSV to RGB.
    k = (n + sextant + 6 * turn) % 6
    return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

  return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)
