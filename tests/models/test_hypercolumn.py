"""Hypercolumns: a sum over layers is one classifier; grids interpolate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import backbones, models
from jaxseg.analysis import network_shapes, total_size
from jaxseg.backbones.geometry import Grid, grids
from jaxseg.errors import UserError
from jaxseg.layers.resize import resize_bilinear
from jaxseg.models.hypercolumn import (
  BoxHypercolumn,
  cut,
  grids_of_maps,
  upsample_to_image,
)
from random_variables import he_positive

TRUNK = {"name": "caffenet", "widths": (4, 8, 8, 8, 8)}
TINY = {"backbone": TRUNK, "head_features": 6}
CLASSES = 3


def _image(*size):
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.standard_normal((*size, 3)), jnp.float32)


def _variables(model, *args):
  init = functools.partial(model.init, train=False)
  return he_positive(jax.eval_shape(init, jax.random.key(0), *args))


def _boxes_model(**fields):
  trunk = backbones.create(TRUNK)
  return BoxHypercolumn(CLASSES, trunk, head_features=6, **fields)


def test_the_papers_column_has_4736_numbers():
  """256 of pool2, 384 of conv4 and 4096 of fc7; one bias per class."""
  model = models.create("hypercolumn", num_classes=21)
  params = network_shapes(model, (227, 227))[1]["params"]
  scores = {k: v for k, v in params.items() if k.startswith("score_")}
  assert sum(v["kernel"].shape[2] for v in scores.values()) == 4736
  assert total_size(scores) == 4737 * 21
  # fc6 (6x6 on 256 features) and fc7.
  assert total_size(params["head"]) == (36 * 256 + 1) * 4096 + 4097 * 4096


@pytest.mark.parametrize("backbone", [TRUNK, {"name": "resnet18", "width": 4}])
def test_a_sum_over_layers_is_one_classifier_of_the_stack(backbone):
  levels = ("c2", "c4", "c5", "fc7")
  model = models.create(
    "hypercolumn",
    num_classes=CLASSES,
    backbone={"caffenet": TRUNK}.get(backbone["name"], backbone),
    levels=levels,
    head_features=6,
    head_kernel_size=3,
  )
  image = _image(1, 65, 97)
  variables = _variables(model, image)

  @jax.jit
  def run(variables):
    outputs, seen = model.apply(
      variables,
      image,
      train=False,
      capture_intermediates=lambda m, _: m.name in ("backbone", "head"),
      mutable=["intermediates"],
    )
    maps = dict(seen["intermediates"]["backbone"]["__call__"][0])
    place = grids_of_maps(model.backbone, maps, (65, 97))
    maps["fc7"] = seen["intermediates"]["head"]["__call__"][0]
    # A 3x3 convolution with a padding of 1 keeps the positions of c5.
    place["fc7"] = place["c5"]
    column = jnp.concatenate(
      [
        upsample_to_image(maps[level], place[level], (65, 97))
        for level in levels
      ],
      -1,
    )
    params = variables["params"]
    kernel = jnp.concatenate(
      [params[f"score_{level}"]["kernel"][0, 0] for level in levels]
    )
    return outputs["logits"], column @ kernel + params["score_c2"]["bias"]

  logits, expected = run(variables)
  assert logits.shape == (1, 65, 97, CLASSES)
  np.testing.assert_allclose(
    logits, expected, atol=1e-5 * np.abs(expected).max()
  )


def test_maps_are_read_at_their_positions():
  """In unpadded AlexNet, position i of conv1 is centred on pixel 4 i + 5."""
  trunk = backbones.create(TRUNK)
  conv1 = grids(trunk)["c2"]
  assert (4 * 3 + 5) * conv1.scale + conv1.shift == 3
  x = jnp.arange(14.0)[None, :, None, None] * jnp.ones((1, 1, 14, 1))
  y = upsample_to_image(x, (conv1, conv1), (64, 64))
  np.testing.assert_allclose(y[0, 5:58:4, 0, 0], np.arange(14), atol=1e-5)
  np.testing.assert_allclose(y[0, 7, 0, 0], 0.5)
  np.testing.assert_allclose(y[0, :5, 0, 0], 0)


def test_maps_of_other_backbones_are_resized_images():
  """Half-pixel bilinear interpolation, as torchvision resizes."""
  resnet = backbones.create({"name": "resnet18", "width": 4})
  x = jax.random.normal(jax.random.key(0), (2, 9, 13, 3))
  place = grids_of_maps(resnet, {"c3": x}, (65, 97))["c3"]
  expected = resize_bilinear(x, (65, 97), align_corners=False)
  np.testing.assert_allclose(
    upsample_to_image(x, place, (65, 97)), expected, atol=1e-5
  )


def test_a_box_of_the_whole_image_is_the_whole_image():
  """With K = 1, a heatmap as large as the image, and no fc7 per box."""
  levels = ("pool2", "conv4")
  whole = models.create(
    "hypercolumn", num_classes=CLASSES, levels=levels, **TINY
  )
  boxed = _boxes_model(levels=levels, grid_size=1, heatmap_size=64)
  image = _image(2, 64, 64)
  variables = _variables(whole, image)
  boxes = jnp.asarray([[[0, 0, 64, 64]]] * 2, jnp.float32)
  expected = jax.jit(functools.partial(whole.apply, train=False))(
    variables, image
  )["logits"]
  outputs = jax.jit(functools.partial(boxed.apply, train=False))(
    variables, image, boxes
  )
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
    outputs["logits"][:, 0], expected, atol=1e-5 * scale
  )
  np.testing.assert_allclose(
    outputs["heatmaps"], jax.nn.sigmoid(outputs["logits"]), atol=1e-5
  )


@pytest.mark.parametrize("grid_size", [1, 5, 10])
def test_each_pixel_interpolates_the_classifiers_around_it(grid_size):
  """Heatmaps equal a loop over pixels if all classifiers are constants.

  Only the bias differs between grid cells. As in Fig. 3 of the paper, the
  centre of a cell has the value of its classifier, and pixels in between
  interpolate the four nearest.
  """
  model = _boxes_model(grid_size=grid_size, levels=("conv4",))
  image = _image(1, 64, 64)
  boxes = jnp.asarray([[[3, 7, 40, 60], [0, 0, 9, 64]]], jnp.float32)
  variables = _variables(model, image, boxes)
  score = variables["params"]["score_conv4"]
  score["kernel"] = jnp.zeros_like(score["kernel"])
  bias = np.random.default_rng(0).standard_normal(
    (grid_size, grid_size, CLASSES)
  )
  score["bias"] = jnp.asarray(bias.ravel(), jnp.float32)
  outputs = jax.jit(functools.partial(model.apply, train=False))(
    variables, image, boxes
  )
  assert outputs["heatmaps"].shape == (1, 2, 50, 50, CLASSES)
  probability = 1 / (1 + np.exp(-bias))
  for i, j in [(0, 0), (2, 7), (25, 24), (49, 13), (44, 49)]:
    want, cell = 0, []
    weights = []
    for p in (i, j):
      u = np.clip((p + 0.5) / 50 * grid_size - 0.5, 0, grid_size - 1)
      low = int(min(np.floor(u), max(grid_size - 2, 0)))
      high = min(low + 1, grid_size - 1)
      weights.append([(low, 1 - (u - low)), (high, u - low)])
      cell.append(int((p + 0.5) / 50 * grid_size))
    for a, wa in weights[0]:
      for b, wb in weights[1]:
        want = want + wa * wb * probability[a, b]
    for box in range(2):
      np.testing.assert_allclose(
        outputs["heatmaps"][0, box, i, j], want, atol=1e-5
      )
      np.testing.assert_allclose(
        outputs["logits"][0, box, i, j], bias[*cell], atol=1e-5
      )


def test_cut_takes_the_middles_of_equal_parts():
  """The map is the image, and its values are its row and column indices."""
  rows, columns = np.mgrid[:20, :30].astype(np.float32)
  x = jnp.asarray(np.stack([rows, columns], -1)[None])
  box = jnp.asarray([[[2, 10, 10, 18]]], jnp.float32)
  y = cut(x, (Grid(), Grid()), box, 4)[0, 0]
  # Parts have 2 pixels; the centre between pixels 2 and 3 is 2.5.
  np.testing.assert_allclose(y[:, 0, 0], [2.5, 4.5, 6.5, 8.5], atol=1e-5)
  np.testing.assert_allclose(y[0, :, 1], [10.5, 12.5, 14.5, 16.5], atol=1e-5)


def test_boxes_are_differentiable_and_reach_every_parameter():
  model = _boxes_model(grid_size=2, heatmap_size=10)
  image = _image(2, 64, 80)
  boxes = jnp.asarray(
    [[[3, 7, 40, 60], [0, 0, 64, 80]], [[8, 8, 24, 24], [1, 2, 60, 64]]],
    jnp.float32,
  )
  variables = _variables(model, image, boxes)

  @jax.jit
  @jax.grad
  def grad(params):
    outputs = model.apply(
      {"params": params},
      image,
      boxes,
      train=True,
      rngs={"dropout": jax.random.key(0)},
    )
    return jnp.sum(outputs["logits"] ** 2)

  for path, value in jax.tree.leaves_with_path(grad(variables["params"])):
    assert np.isfinite(value).all(), path
    assert np.abs(value).max() > 0, path


@pytest.mark.parametrize(
  ("fields", "size", "names"),
  [
    ({}, (20, 64), ["image of 20x64", "39x39"]),
    ({"levels": ("pool2", "conv9")}, (64, 64), ["conv9", "did you mean"]),
  ],
)
def test_errors_are_one_line(fields, size, names):
  model = models.create(
    "hypercolumn", num_classes=CLASSES, **{**TINY, **fields}
  )
  with pytest.raises(UserError) as error:
    _variables(model, _image(1, *size))
  assert all(name in str(error.value) for name in names), error.value
  assert "\n" not in str(error.value)
