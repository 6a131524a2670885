"""Augmentation against float64 resizing, cropping, mirroring, recolouring."""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.augment import Augmentation, augment, displacement, normalise

IGNORE = 255
MEAN = (0.485, 0.456, 0.406)
KEY = jax.random.fold_in(jax.random.key(3), 17)


def batch(n=6, canvas=(20, 26), seed=0, full=False):
  """Returns images of various sizes on one canvas, and their labels."""
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (n, *canvas, 3)).astype(np.uint8)
  label = rng.integers(0, 5, (n, *canvas)).astype(np.uint8)
  size = np.stack([rng.integers(5, side + 1, n) for side in canvas], axis=1)
  size = np.tile(canvas, (n, 1)) if full else size
  for i, (h, w) in enumerate(size):
    label[i, h:] = label[i, :, w:] = IGNORE
    image[i, h:] = image[i, :, w:] = np.round(np.multiply(MEAN, 255))
  index = rng.permutation(100)[:n]
  return (
    jnp.asarray(image),
    jnp.asarray(label),
    jnp.asarray(size, jnp.int32),
    jnp.asarray(index, jnp.int32),
  )


def run(data, key=KEY, **options):
  """Augments examples; the key of each one follows from its number."""
  changed = functools.partial(
    augment,
    settings=Augmentation(**options),
    mean=MEAN,
    ignore_label=IGNORE,
  )
  *arrays, index = data
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
  outputs = jax.jit(changed)(keys, *arrays)
  return tuple(np.asarray(x) for x in outputs)


def draws(index, key=KEY):
  key = jax.random.fold_in(key, int(index))
  return np.asarray(jax.random.uniform(key, (8,)), np.float64)


def resized(image, size):
  """Resizes bilinearly (half-pixel centres), pixel by pixel in float64."""
  out = np.zeros((*size, image.shape[-1]))
  for i, j in np.ndindex(*size):
    pixel = 0.0
    y = np.clip((i + 0.5) * image.shape[0] / size[0] - 0.5, 0, None)
    x = np.clip((j + 0.5) * image.shape[1] / size[1] - 0.5, 0, None)
    for a, wy in ((int(y), 1 - y % 1), (int(y) + 1, y % 1)):
      for b, wx in ((int(x), 1 - x % 1), (int(x) + 1, x % 1)):
        a, b = min(a, image.shape[0] - 1), min(b, image.shape[1] - 1)
        pixel = pixel + wy * wx * image[a, b]
    out[i, j] = pixel
  return out


def nearest(label, size):
  rows = np.arange(size[0])[:, None] + 0.5
  cols = np.arange(size[1])[None, :] + 0.5
  return label[
    np.floor(rows * label.shape[0] / size[0] + 1e-9).astype(int),
    np.floor(cols * label.shape[1] / size[1] + 1e-9).astype(int),
  ]


def reference(image, label, size, index, crop, scale, flip):
  """Resizes, then crops or pads, then mirrors, in float64."""
  u = draws(index)
  ratio = scale[0] * (scale[1] / scale[0]) ** u[0]
  scaled = [max(int(round(ratio * s)), 1) for s in size]
  image = resized(image[: size[0], : size[1]] / 255, scaled)
  label = nearest(label[: size[0], : size[1]], scaled)
  out = np.broadcast_to(np.array(MEAN), (*crop, 3)).copy()
  out_label = np.full(crop, IGNORE)
  source, target = [], []
  for m, c, d in zip(scaled, crop, u[1:3], strict=True):
    offset = int(d * (abs(m - c) + 1))
    span = min(m, c)
    source.append(slice(offset, offset + span) if m > c else slice(0, span))
    target.append(slice(0, span) if m > c else slice(offset, offset + span))
  out[tuple(target)] = image[tuple(source)]
  out_label[tuple(target)] = label[tuple(source)]
  if flip and u[3] < 0.5:
    out, out_label = out[:, ::-1], out_label[:, ::-1]
  return out, out_label


@pytest.mark.parametrize(
  "crop, scale, flip",
  [
    ((20, 26), (1.0, 1.0), False),
    ((9, 11), (1.0, 1.0), True),
    ((9, 11), (0.5, 2.0), True),
    ((31, 24), (0.5, 2.0), False),
    ((10, 13), (0.5, 0.5), True),
    ((16, 40), (0.1, 0.2), False),
  ],
)
def test_equals_resize_crop_and_mirror(crop, scale, flip):
  data = batch()
  image, label = run(data, crop=crop, scale=scale, flip=flip)
  for i in range(len(image)):
    one = [np.asarray(x[i]) for x in data]
    expected = reference(*one, crop=crop, scale=scale, flip=flip)
    np.testing.assert_allclose(image[i], expected[0], atol=2e-6)
    np.testing.assert_array_equal(label[i], expected[1])


def test_without_randomness_it_is_the_identity():
  data = batch(n=2, full=True)
  for function in (run, jax.disable_jit()(run)):
    image, label = function(data, crop=(20, 26))
    np.testing.assert_array_equal(image, np.float32(1 / 255) * data[0])
    np.testing.assert_array_equal(label, data[1])
    assert image.dtype == np.float32 and label.dtype == np.int32


def test_identity_has_the_bits_of_normalised_bytes():
  """Training at scale 1 and evaluation read the same numbers."""
  data = batch(full=True)
  image, _ = run(data, crop=(20, 26))
  std = (0.2, 0.3, 0.4)
  np.testing.assert_array_equal(
    normalise(jnp.asarray(image), MEAN, std), normalise(data[0], MEAN, std)
  )


def test_each_example_depends_on_its_key_alone():
  data = batch()
  options = {
    "crop": (12, 12),
    "scale": (0.5, 2.0),
    "flip": True,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "hue": 0.1,
  }
  everything = run(data, **options)
  order = np.array([4, 0, 5, 2])
  some = run(tuple(x[order] for x in data), **options)
  for a, b in zip(everything, some, strict=True):
    np.testing.assert_array_equal(a[order], b)
  other = run(data, key=jax.random.fold_in(KEY, 1), **options)
  assert not np.array_equal(everything[1], other[1])


def test_crops_are_uniform_and_half_are_mirrored():
  """Labels are column numbers, so the first label is the crop's offset."""
  n, side, crop = 4000, 8, 5
  label = jnp.tile(jnp.arange(side, dtype=jnp.uint8), (n, side, 1))
  data = (
    jnp.zeros((n, side, side, 3), jnp.uint8),
    label,
    jnp.full((n, 2), side, jnp.int32),
    jnp.arange(n, dtype=jnp.int32),
  )
  _, label = run(data, crop=(crop, crop), flip=True)
  mirrored = label[:, 0, 0] > label[:, 0, -1]
  left = label[:, 0].min(axis=1)
  assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
  counts = np.bincount(left, minlength=side)
  np.testing.assert_array_equal(counts[4:], 0)
  assert np.abs(counts[:4] / n - 0.25).max() < 4 * np.sqrt(0.1875 / n)


def test_scale_is_log_uniform():
  """The width of a white image in a large crop measures its scale."""
  n, side = 2000, 64
  data = (
    jnp.full((n, 1, side, 3), 255, jnp.uint8),
    jnp.zeros((n, 1, side), jnp.uint8),
    jnp.tile(jnp.asarray([1, side], jnp.int32), (n, 1)),
    jnp.arange(n, dtype=jnp.int32),
  )
  _, label = run(data, crop=(2, 256), scale=(0.5, 2.0))
  width = (label == 0).sum(axis=2).max(axis=1)
  assert width.min() >= 32 and width.max() <= 128
  octave = np.log2(width / side)  # Uniform on -1..1 has variance 1/3.
  assert abs(octave.mean()) < 4 * np.sqrt(1 / 3 / n)
  assert abs(octave.var() - 1 / 3) < 0.03


def test_outside_is_mean_and_ignored_even_after_colour():
  data = batch()
  image, label = run(
    data, crop=(40, 40), brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5
  )
  outside = label == IGNORE
  assert outside.any()
  np.testing.assert_array_equal(
    image[outside], np.broadcast_to(np.float32(MEAN), image[outside].shape)
  )
  assert image.min() >= 0 and image.max() <= 1


def recoloured(image, kind, width, draw):
  """Applies torchvision.transforms.ColorJitter's definitions, in float64."""
  luma = image @ np.array([0.2989, 0.587, 0.114])
  factor = max(1 + (2 * draw - 1) * width, 0)
  if kind == "brightness":
    return np.clip(factor * image, 0, 1)
  if kind == "contrast":
    return np.clip(factor * image + (1 - factor) * luma.mean(), 0, 1)
  if kind == "saturation":
    return np.clip(factor * image + (1 - factor) * luma[..., None], 0, 1)
  turned = []
  for pixel in image.reshape(-1, 3):
    h, s, v = colorsys.rgb_to_hsv(*pixel)
    turned.append(colorsys.hsv_to_rgb((h + factor - 1) % 1, s, v))
  return np.reshape(turned, image.shape)


@pytest.mark.parametrize(
  "number, kind, width",
  [
    (0, "brightness", 0.4),
    (0, "brightness", 2.0),
    (1, "contrast", 0.4),
    (2, "saturation", 0.4),
    (3, "hue", 0.1),
    (3, "hue", 0.5),
  ],
)
def test_colour_equals_its_definition(number, kind, width):
  data = batch(full=True)
  data = (data[0].at[0, :3].set(128), *data[1:])  # Grey has no hue.
  image, _ = run(data, crop=(20, 26), **{kind: width})
  for i, original in enumerate(np.asarray(data[0])):
    expected = recoloured(
      original / 255, kind, width, draws(data[3][i])[4 + number]
    )
    np.testing.assert_allclose(image[i], expected, atol=3e-6)


def test_normalise_bytes_and_floats():
  image = batch()[0]
  std = (0.2, 0.3, 0.4)
  expected = (np.asarray(image, np.float64) / 255 - MEAN) / std
  np.testing.assert_allclose(normalise(image, MEAN, std), expected, atol=1e-6)
  half = normalise(image, MEAN, std, jnp.bfloat16)
  assert half.dtype == jnp.bfloat16


@pytest.mark.torch
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.3, 2.0])
def test_resampling_equals_torch(scale):
  torch = pytest.importorskip("torch")
  canvas = (20, 26)
  data = batch(full=True)
  size = tuple(int(round(scale * s)) for s in canvas)
  image, label = run(data, crop=size, scale=(scale, scale))
  x = torch.tensor(np.moveaxis(np.asarray(data[0]), -1, 1)).float() / 255
  expected = torch.nn.functional.interpolate(
    x, size=size, mode="bilinear", align_corners=False
  )
  np.testing.assert_allclose(
    image, np.moveaxis(expected.numpy(), 1, -1), atol=2e-6
  )
  y = torch.tensor(np.asarray(data[1])).float()[:, None]
  expected = torch.nn.functional.interpolate(y, size=size, mode="nearest-exact")
  np.testing.assert_array_equal(label, expected.numpy()[:, 0])


def ramps(n=400, side=48):
  """Returns images whose red and green are the row and the column."""
  grid = np.stack(np.indices((side, side)), axis=-1)
  image = np.zeros((n, side, side, 3), np.uint8)
  image[..., :2] = grid
  return (
    jnp.asarray(image),
    jnp.asarray(image[..., 0] // 4),
    jnp.full((n, 2), side, jnp.int32),
    jnp.arange(n, dtype=jnp.int32),
  )


@pytest.mark.parametrize("flip", [False, True])
def test_a_warp_that_moves_nothing_changes_nothing(flip):
  data = batch()
  options = {"crop": (19, 24), "scale": (0.5, 2.0), "flip": flip}
  plain = run(data, **options)
  warped = run(data, elastic_std=1e-6, **options)
  np.testing.assert_allclose(warped[0], plain[0], atol=1e-4)
  # A position exactly between two pixels may round either way.
  assert np.mean(warped[1] == plain[1]) > 0.98


def test_image_and_label_are_deformed_alike():
  """Labels are a function of the row, which the red channel shows."""
  image, label = run(
    ramps(16), crop=(48, 48), elastic_std=3.0, rotation=30.0, flip=True
  )
  seen = label != IGNORE
  assert 0.5 < seen.mean() < 1
  assert set(np.unique(label)) <= {*range(12), IGNORE}
  row = image[..., 0] * 255
  nearest = np.floor(row + 0.5) // 4
  between = np.abs((row + 0.5) % 4 - 2) > 1.9  # The label changes.
  np.testing.assert_array_equal(
    label[seen & ~between], nearest[seen & ~between]
  )
  assert np.abs(row - np.arange(48)[:, None])[seen].max() > 3


def test_vectors_of_the_grid_have_the_deviation():
  """Bicubic interpolation passes through the vectors of the grid.

  In a crop of 9 pixels, the three vectors of an axis stand at 1, 4 and 7.
  """
  keys = jax.random.split(jax.random.key(0), 2000)
  field = jax.vmap(lambda k: displacement(k, (9, 9), elastic_std=10.0))(keys)
  at = np.asarray(field)[:, 1::3, 1::3]
  np.testing.assert_allclose(at.std(axis=0), 10.0, rtol=0.08)
  assert np.abs(at.mean(axis=0)).max() < 1.0
  flat = at.reshape(2000, -1)
  mixed = np.corrcoef(flat.T) - np.eye(18)
  assert np.abs(mixed).max() < 0.1


def test_rotation_turns_about_the_middle():
  shift = displacement(jax.random.key(1), (21, 21), rotation=90.0)
  np.testing.assert_allclose(shift[10, 10], 0, atol=1e-6)
  y, x = np.indices((21, 21)) - 10.0
  turned = np.stack([y, x], axis=-1) + shift
  # Rotation keeps distances, and the largest angle is a quarter turn.
  np.testing.assert_allclose(
    np.linalg.norm(turned, axis=-1), np.hypot(y, x), atol=1e-4
  )
  angle = np.degrees(np.arctan2(turned[10, 20, 0], turned[10, 20, 1]))
  assert 0 < abs(angle) <= 90


def test_deformation_depends_on_the_key_alone():
  data = ramps(6, 24)
  options = {"crop": (20, 20), "elastic_std": 4.0, "rotation": 20.0}
  everything = run(data, **options)
  order = np.array([4, 0, 2])
  some = run(tuple(x[order] for x in data), **options)
  for a, b in zip(everything, some, strict=True):
    np.testing.assert_array_equal(a[order], b)
  assert not np.array_equal(everything[0][0], everything[0][1])
