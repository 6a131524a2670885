"""A classifier as convolutions has the same scores at every position."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models, weights
from jaxseg.analysis import network_shapes
from jaxseg.errors import UserError
from jaxseg.models.convolutionalise import DenseView, convolutionalise
from random_variables import he_positive

FEATURES = 16
CLASSES = 5
# fc6 covers the map that the classifier's head reads at 224 (caffenet: 227).
CASES = {
  "vgg11_bn": ({"name": "vgg11_bn", "width": 2}, 7, 224),
  "alexnet": ({"name": "alexnet", "widths": (4, 6, 8, 8, 4)}, 6, 224),
  "caffenet": ({"name": "caffenet", "widths": (4, 6, 8, 8, 4)}, 6, 227),
}
# Without padding, an image of VGG-16's receptive field, 404 pixels, gives a
# 7x7 map, and all pooled sizes are even.
FIELD = 404
UNPADDED = {"name": "vgg16", "width": 2, "padding": 0, "pad_inner": False}


def _random(module, side, seed=0):
  """Returns random variables, running statistics included."""
  _, shapes = network_shapes(module, (side, side))
  return he_positive(shapes, low=0.2, high=1.0, seed=seed)


def _pair(spec, side):
  """Returns a classifier with random variables, and its dense view."""
  classifier = models.create(
    "classifier", num_classes=CLASSES, backbone=spec, head_features=FEATURES
  )
  return classifier, _random(classifier, side)


def _apply(module):
  return jax.jit(functools.partial(module.apply, train=False))


def _view(classifier, kernel_size):
  return DenseView(
    CLASSES, classifier.backbone, kernel_size, head_features=FEATURES
  )


def _image(*size):
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.standard_normal((1, *size, 3)), jnp.float32)


@pytest.mark.parametrize("name", CASES)
def test_at_the_training_size_it_is_the_classifier(name):
  spec, kernel_size, side = CASES[name]
  classifier, variables = _pair(spec, side)
  image = _image(side, side)
  expected = _apply(classifier)(variables, image)["logits"]
  view = _view(classifier, kernel_size)
  y = _apply(view)(convolutionalise(variables), image)["logits"]
  assert y.shape == (1, 1, 1, CLASSES)
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(
    y[:, 0, 0], expected, atol=1e-5 * np.abs(expected).max()
  )


def test_one_pass_is_the_classifier_slid_over_the_image():
  classifier, variables = _pair(UNPADDED, FIELD)
  image = _image(FIELD + 32, FIELD + 64)
  y = _apply(_view(classifier, 7))(convolutionalise(variables), image)
  y = y["logits"]
  assert y.shape == (1, 2, 3, CLASSES)
  slid = _apply(classifier)
  for i, j in np.ndindex(2, 3):
    window = image[:, 32 * i : 32 * i + FIELD, 32 * j : 32 * j + FIELD]
    expected = slid(variables, window)["logits"]
    np.testing.assert_allclose(
      y[:, i, j], expected, atol=1e-5 * np.abs(expected).max()
    )
  # Scores differ between positions.
  assert np.ptp(y, axis=(1, 2)).max() > 1e-2 * np.abs(y).max()


def _flops(module, side):
  """Returns XLA's count of operations for VGG-16 at full width."""
  outputs, variables = network_shapes(module, (side, side))
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  apply = jax.jit(functools.partial(module.apply, train=False))
  cost = apply.lower(variables, image).cost_analysis()
  return outputs["logits"].shape, cost["flops"]


def test_one_pass_at_448_costs_7_percent_of_64_windows():
  """Arithmetic: 15.35e9 products in convolutions and 0.12e9 in fc at 224.

  The expected ratio is (4 * 15.35 + 64 * 0.12) / (64 * 15.47) = 0.070. XLA does
  not count products with padding, which are 3 % of them.
  """
  classifier = models.create("classifier", num_classes=1000, backbone="vgg16")
  shape, once = _flops(classifier, 224)
  assert shape == (1, 1000)
  assert once == pytest.approx(2 * 15.47e9, rel=0.04)
  shape, dense = _flops(DenseView(1000, classifier.backbone), 448)
  assert shape == (1, 8, 8, 1000)
  assert dense / (64 * once) == pytest.approx(0.070, abs=0.003)


def test_fcn_is_initialised_from_it(tmp_path):
  """FCN is initialised from all layers except the scores."""
  spec = {"name": "vgg11_bn", "width": 2}
  _, variables = _pair(spec, 224)
  path = tmp_path / "vgg.npz"
  weights.save(path, convolutionalise(variables))
  fcn = models.create(
    "fcn_32s",
    num_classes=CLASSES + 2,
    backbone={**spec, "padding": 100},
    head_features=FEATURES,
  )
  fresh = _random(fcn, 32, seed=1)
  started = weights.initialise(fcn, fresh, model=str(path), skip=("score",))
  params, source = started["params"], variables["params"]
  jax.tree.map(
    np.testing.assert_array_equal, params["backbone"], source["backbone"]
  )
  fc6 = source["head"]["fc6"]["kernel"].reshape(7, 7, 16, FEATURES)
  np.testing.assert_array_equal(params["head"]["fc6"]["kernel"], fc6)
  jax.tree.map(
    np.testing.assert_array_equal,
    params["score_fr"],
    fresh["params"]["score_fr"],
  )


def test_another_head_is_refused():
  variables = {"params": {"head": {"classifier": {}}, "backbone": {}}}
  with pytest.raises(UserError, match="expected fc6, fc7 and classifier"):
    convolutionalise(variables)
