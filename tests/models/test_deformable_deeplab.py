"""Deformable DeepLab: counts, initial offsets, and the upsampling."""

import functools

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import network_shapes, total_size
from jaxseg.errors import UserError

TRUNK = 42_500_160  # Parameters of torchvision's ResNet-101.
HEAD = (2048 * 1024 + 1024) + (1024 * 21 + 21)
SMALL = {"name": "resnet18", "width": 4, "stage_sizes": (1, 1, 1, 2)}


def _offsets(channels):
  """Returns the parameters of three 3x3 convolutions of 512 features."""
  return 3 * (9 * 512 * channels + channels)


@pytest.mark.parametrize(
  ("backbone", "count"),
  [
    ({}, TRUNK + HEAD + _offsets(18)),
    pytest.param(
      {"modulated": True},
      TRUNK + HEAD + _offsets(27),
      marks=pytest.mark.slow,
    ),
    pytest.param(
      {"deformable_stages": ()}, TRUNK + HEAD, marks=pytest.mark.slow
    ),
  ],
)
def test_parameter_counts(backbone, count):
  model = models.create("deformable_deeplab", num_classes=21, backbone={
    "name": "resnet101", **backbone
  })  # fmt: skip
  params = network_shapes(model, (65, 65))[1]["params"]
  assert total_size(params) == count
  offsets = {
    path.split("/")[1]: leaf.shape
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items()
    if path.endswith("offset/kernel")
  }
  if backbone.get("deformable_stages") is None:
    channels = 27 if backbone else 18
    assert offsets == {
      f"stage4_block{b}": (3, 3, 512, channels) for b in (1, 2, 3)
    }


def _create(**backbone):
  return models.create(
    "deformable_deeplab",
    num_classes=3,
    features=8,
    backbone={**SMALL, **backbone},
  )


def _init(model, image):
  init = functools.partial(model.init, train=False)
  return jax.jit(init)(jax.random.key(1), image)


def _apply(model, variables, image) -> np.ndarray:
  apply = jax.jit(functools.partial(model.apply, train=False))
  return np.asarray(apply(variables, image)["logits"])


def test_initial_network_equals_the_plain_one():
  """Zero offsets give a plain convolution of the stage's dilation."""
  deformable, plain = _create(), _create(deformable_stages=())
  image = jax.random.normal(jax.random.key(0), (1, 64, 96, 3))
  variables = _init(deformable, image)
  flat = traverse_util.flatten_dict(variables["params"], sep="/")
  offsets = [v for k, v in flat.items() if "/offset/" in k]
  assert len(offsets) == 8 and not any(np.any(v) for v in offsets)
  without = {k: v for k, v in flat.items() if "/offset/" not in k}
  without = traverse_util.unflatten_dict(without, sep="/")
  got = _apply(deformable, variables, image)
  want = _apply(plain, {**variables, "params": without}, image)
  np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_upsampling_by_sixteen_is_cropped_by_eight():
  """Score i is centred between pixels 16 i + 7 and 16 i + 8."""
  model = _create()
  image = jnp.zeros((1, 64, 96, 3))
  variables = _init(model, image)
  # Scores equal their bias, which is constant away from the borders.
  params = jax.tree.map(jnp.zeros_like, variables["params"])
  params["score"]["bias"] = jnp.asarray([1.0, 2.0, -3.0])
  logits = _apply(model, {**variables, "params": params}, image)
  assert logits.shape == (1, 64, 96, 3)
  inside = logits[0, 8:, 8:]
  np.testing.assert_allclose(
    inside, np.broadcast_to([1.0, 2.0, -3.0], inside.shape), rtol=1e-6
  )
  # Before the centre of the first score, the weights sum to less than 1.
  np.testing.assert_allclose(logits[0, 0, 50, 0], 17 / 32, rtol=1e-6)


def test_odd_output_strides_are_refused():
  model = _create(output_stride=16).clone(
    backbone=_create().backbone.clone(output_stride=7)
  )
  with pytest.raises(UserError, match="even number"):
    model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
