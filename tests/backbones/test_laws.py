"""Laws over all backbones, on a small instance of every architecture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import backbones
from jaxseg.analysis import network_shapes, unreached_parameters
from jaxseg.layers.norm import BatchNorm

# Small networks of each family. The last stages have two blocks, so that one
# of them comes after the stride.
_RESNET = {"width": 4, "stage_sizes": (1, 1, 2, 2)}
SMALL = {
  "alexnet": {"name": "alexnet", "widths": (4, 6, 8, 6, 6)},
  "caffenet": {"name": "caffenet", "widths": (4, 6, 8, 6, 6)},
  "vgg": {"name": "vgg11", "width": 2},
  "vgg_bn": {
    "name": "vgg13_bn",
    "width": 2,
    "stage_sizes": (1, 1, 1, 2, 2),
    "ceil_mode": True,
  },
  "googlenet": {"name": "googlenet", "width_div": 4, "branch3_kernel": 5},
  "resnet_basic": {"name": "resnet18", **_RESNET},
  "resnet_caffe": {
    "name": "resnet50",
    "stride_in_1x1": True,
    "ceil_mode": True,
    **_RESNET,
  },
  "resnext": {
    "name": "resnext50_32x4d",
    "groups": 2,
    "width_per_group": 32,
    **_RESNET,
  },
  "se_resnet": {"name": "se_resnet50", **_RESNET, "width": 16},
  "deformable": {
    "name": "resnet18",
    "width": 4,
    "stage_sizes": (1, 1, 1, 1),
    "deformable_stages": (4,),
    "modulated": True,
  },
  "densenet": {
    "name": "densenet121",
    "block_sizes": (1, 1, 2, 2),
    "growth": 4,
    "stem_features": 8,
  },
  "efficientnet": {
    "name": "efficientnet_b0",
    "stages": (
      (1, 3, 1, 8, 1),
      (2, 3, 2, 8, 1),
      (2, 5, 2, 8, 1),
      (2, 3, 2, 8, 1),
      (2, 3, 2, 8, 2),
    ),
  },
  "xception": {"name": "xception41", "middle_blocks": 1, "width_div": 32},
  "mobilenet_v2": {
    "name": "mobilenet_v2",
    "stages": (
      (1, 8, 1, 1),
      (2, 8, 1, 2),
      (2, 8, 1, 2),
      (2, 8, 1, 2),
      (2, 8, 2, 2),
    ),
  },
}
LEVELS = ("c1", "c2", "c3", "c4", "c5")
each_family = pytest.mark.parametrize("family", sorted(SMALL))


def image(height: int, width: int) -> jax.Array:
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.normal(size=(1, height, width, 3)), jnp.float32)


def build(family: str, **fields):
  return backbones.create({**SMALL[family], **fields})


@functools.cache
def shapes(family: str):
  return network_shapes(build(family), (64, 64))[1]


@functools.cache
def random_variables(family: str):
  """Draws kernels of unit gain and no zeros or ones, also as statistics."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == "kernel":
      fan_in = np.prod(leaf.shape[:-1])
      value = rng.normal(size=leaf.shape) * (2 / fan_in) ** 0.5
    elif path[-1].key in ("scale", "var"):
      value = rng.uniform(0.5, 1.5, leaf.shape)
    else:
      value = rng.normal(size=leaf.shape) * 0.1
    return jnp.asarray(value, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes(family))


def features_of(backbone, variables, x):
  return jax.jit(functools.partial(backbone.apply, train=False))(variables, x)


def without_density(variables):
  """Zeroes the kernels of the layers that depend on the density of a map.

  Squeeze-and-excitation averages the whole map, and deformable offsets are in
  pixels of the map.
  """
  dense = ("['se']['expand']['kernel']", "['offset']")

  def zero(path, v):
    name = jax.tree_util.keystr(path)
    return v * 0 if any(part in name for part in dense) else v

  return jax.tree_util.tree_map_with_path(zero, variables)


@functools.cache
def strided_features(family: str, side: int):
  variables = without_density(random_variables(family))
  return features_of(build(family), variables, image(side, side))


# Output stride 8 covers output stride 16: it has a stage whose stride was
# removed, and another one after it.
STRIDES = [(family, 8) for family in sorted(SMALL)] + [
  ("resnet_basic", 16),
  ("resnet_caffe", 16),
]


@pytest.mark.parametrize("family, output_stride", STRIDES)
def test_atrous_consistency(family, output_stride):
  """Dense features, subsampled, equal the features of the strided network.

  Padding is symmetric, so pixel i of a strided layer lies on pixel 2 i of its
  input at any size. A 2x2 pool that drops an odd last row is the exception: it
  sees less than its dense form, so VGG and DenseNet are tested on even maps.
  """
  side = 64 if family in ("vgg", "densenet") else 97
  expected = strided_features(family, side)
  dense = build(family, output_stride=output_stride)
  variables = without_density(random_variables(family))
  found = features_of(dense, variables, image(side, side))
  for level in [key for key in expected if key in LEVELS]:
    want = np.asarray(expected[level])
    ratio = max(2 ** int(level[1]) // output_stride, 1)
    got = np.asarray(found[level])[:, ::ratio, ::ratio]
    assert got.shape == want.shape, level
    assert want.std() > 0
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


# The gradients of the other families are compared with PyTorch's.
@pytest.mark.slow
@pytest.mark.parametrize("family", ["caffenet", "deformable"])
def test_every_parameter_gets_a_gradient(family):
  """At an odd size, with random variables, from all levels."""
  unreached = unreached_parameters(
    build(family), (71, 67), train=False, variables=random_variables(family)
  )
  assert unreached == []


@each_family
def test_training_in_bfloat16_makes_the_same_float32_variables(family):
  backbone = backbones.create(SMALL[family], dtype=jnp.bfloat16)
  features, variables = network_shapes(backbone, (64, 64), train=True)
  assert {v.dtype for v in features.values()} == {jnp.dtype(jnp.bfloat16)}
  assert variables == shapes(family)
  types = {v.dtype for v in jax.tree.leaves(variables)}
  assert types == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
  "family", sorted(SMALL.keys() - {"alexnet", "caffenet"})
)
def test_frozen_batch_norm_stays_frozen(family):
  """Training changes no statistic if frozen, and all of them otherwise."""
  moved = {}

  def step(variables, frozen):
    backbone = backbones.create(
      SMALL[family], norm=functools.partial(BatchNorm, frozen=frozen)
    )
    _, updates = backbone.apply(
      variables,
      image(64, 64),
      train=True,
      rngs={"dropout": jax.random.key(0)},
      mutable=["batch_stats"],
    )
    before = jax.tree.leaves(variables.get("batch_stats", {}))
    after = jax.tree.leaves(updates.get("batch_stats", {}))
    # Identical tracers: nothing was computed from them.
    moved[frozen] = [a is not b for a, b in zip(before, after, strict=True)]
    return updates

  for frozen in (True, False):
    jax.eval_shape(functools.partial(step, frozen=frozen), shapes(family))
  assert not any(moved[True])
  assert all(moved[False])


def test_tensorflows_padding_is_symmetric_on_odd_maps_alone():
  """Stride 2 pads odd maps (65, 33, 17, 9) by (1, 1), even ones by (0, 1)."""
  variables = random_variables("efficientnet")
  for side, equal in ((65, True), (64, False)):
    symmetric, same = (
      features_of(
        build("efficientnet", padding=padding), variables, image(side, side)
      )
      for padding in (None, "SAME")
    )
    assert same["c5"].shape == symmetric["c5"].shape
    assert np.allclose(same["c5"], symmetric["c5"], atol=1e-4) == equal
