"""PSPNet and its ResNets: published counts and sizes, pooling and dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import backbones, losses, models
from jaxseg.analysis import network_shapes, total_size
from jaxseg.errors import UserError
from jaxseg.layers.conv import ConvNormAct
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import adaptive_avg_pool
from jaxseg.models.pspnet import Head, PyramidPooling, window_avg_pool

# hszhao/semseg, model/pspnet.py: (layers, classes) -> without, with aux head.
COUNTS = {
  (50, 21): (46_716_373, 49_081_578),
  (50, 19): (46_715_347, 49_080_038),
  (50, 150): (46_782_550, 49_180_908),
  (101, 21): (65_708_501, 68_073_706),
  (101, 19): (65_707_475, 68_072_166),
  (101, 150): (65_774_678, 68_173_036),
}
TINY = {
  "backbone": {"name": "resnet18", "width": 4, "stage_sizes": (1, 1, 1, 1)},
  "head_features": 8,
  "aux_features": 8,
}


@functools.cache
def _shapes(layers: int, num_classes: int):
  model = models.create(
    "pspnet", num_classes=num_classes, backbone=f"resnet{layers}"
  )
  return network_shapes(model, (65, 65))


@pytest.mark.parametrize(
  ("layers", "classes"),
  [
    (50, 21),
    (101, 150),
    *(
      pytest.param(*case, marks=pytest.mark.exhaustive)
      for case in sorted(COUNTS.keys() - {(50, 21), (101, 150)})
    ),
  ],
)
def test_parameter_counts_are_semsegs(layers, classes):
  params = _shapes(layers, classes)[1]["params"]
  without = {k: v for k, v in params.items() if k != "aux_head"}
  assert (total_size(without), total_size(params)) == COUNTS[layers, classes]


def test_parts_have_semsegs_counts():
  params = _shapes(50, 21)[1]["params"]
  assert total_size(params["backbone"]) == 23_631_808
  assert total_size(_shapes(101, 21)[1]["params"]["backbone"]) == 42_623_936
  assert total_size(params["pyramid"]) == 4_198_400
  assert total_size(params["head"]) == 18_886_165


@pytest.mark.parametrize("size", [(473, 473), (713, 713), (38, 51), (1, 7)])
def test_logits_have_the_size_of_the_image(size):
  model = models.create("pspnet", num_classes=21)
  outputs, _ = network_shapes(model, size, batch=2)
  assert set(outputs) == {"logits", "aux_logits"}
  for value in outputs.values():
    assert value.shape == (2, *size, 21) and value.dtype == jnp.float32


@pytest.mark.parametrize(
  ("output_stride", "sides"),
  [
    (8, (237, 119, 60, 60, 60)),
    (16, (237, 119, 60, 30, 30)),
    (32, (237, 119, 60, 30, 15)),
  ],
)
def test_levels_of_a_473_crop(output_stride, sides):
  backbone = backbones.create(
    {"name": "resnet50", "output_stride": output_stride, "stem": "deep"}
  )
  levels, _ = network_shapes(backbone, (473, 473))
  channels = (128, 256, 512, 1024, 2048)
  assert {k: v.shape for k, v in levels.items()} == {
    f"c{i}": (1, side, side, features)
    for i, side, features in zip(range(1, 6), sides, channels, strict=True)
  }


def test_models_are_hashable():
  """`jax.jit` takes hashable models as static arguments."""
  norm = {"name": "batch", "momentum": 0.5}
  for fields in (TINY, {**TINY, "norm": norm}, {**TINY, "dtype": "bfloat16"}):
    model = models.create("pspnet", num_classes=3, **fields)
    assert hash(model) == hash(model.clone())


def test_the_first_loss_is_that_of_a_uniform_prediction():
  """Initial logits are small, so each loss is near log(classes)."""
  model = models.create(
    "pspnet",
    num_classes=11,
    backbone={"name": "resnet18", "width": 8, "stage_sizes": (1, 1, 1, 1)},
    head_features=512,
    aux_features=256,
  )
  rng = np.random.default_rng(0)
  image = jnp.asarray(rng.standard_normal((4, 65, 97, 3)), jnp.float32)
  label = jnp.asarray(rng.integers(0, 11, image.shape[:3]))

  @jax.jit
  def first_losses(keys):
    outputs, _ = model.init_with_output(keys, image, train=True)
    return {
      head: losses.softmax_cross_entropy(logits, label, ignore_label=255)
      for head, logits in outputs.items()
    }

  keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
  found = first_losses(keys)
  assert found.keys() == {"logits", "aux_logits"}
  for total, weight in found.values():
    assert abs(total / weight - np.log(11)) < 0.5


def test_dropout_drops_whole_channels():
  conv = functools.partial(ConvNormAct, norm=BatchNorm, act=None)
  head = Head(64, 5, dropout_rate=0.5, conv=conv)
  x = jax.random.normal(jax.random.key(0), (3, 6, 7, 4))
  variables = head.init(jax.random.key(1), x, train=False)
  _, state = head.apply(
    variables,
    x,
    train=True,
    rngs={"dropout": jax.random.key(2)},
    mutable=["intermediates", "batch_stats"],
    capture_intermediates=lambda module, _: module.name in ("conv", "dropout"),
  )
  seen = state["intermediates"]
  before = np.asarray(seen["conv"]["__call__"][0])
  after = np.asarray(seen["dropout"]["__call__"][0])
  kept = np.abs(after).max((1, 2)) > 0
  # 192 channels of 3 examples: 0.5 within six standard deviations.
  assert 0.28 < kept.mean() < 0.72
  assert (kept[0] != kept[1]).any()
  want = np.where(kept[:, None, None], 2 * before, 0)
  np.testing.assert_allclose(after, want, rtol=1e-6)


def test_dropout_of_the_caffe_form_drops_single_values():
  conv = functools.partial(ConvNormAct, norm=None)
  head = Head(64, 5, dropout_rate=0.5, conv=conv, channel_dropout=False)
  x = jnp.ones((1, 6, 7, 4))
  variables = head.init(jax.random.key(1), x, train=False)
  _, state = head.apply(
    variables,
    x,
    train=True,
    rngs={"dropout": jax.random.key(2)},
    mutable=["intermediates"],
    capture_intermediates=lambda module, _: module.name == "dropout",
  )
  (after,) = state["intermediates"]["dropout"]["__call__"]
  kept = np.asarray(after)[0].any((0, 1))
  whole = np.asarray(after)[0].all((0, 1))
  assert kept.any() and not whole.any()


@pytest.mark.parametrize(("crop", "side"), [(473, 60), (713, 90)])
def test_caffes_windows_are_the_bins_of_its_crop(crop, side):
  """hszhao/PSPNet: kernels 60, 30, 20, 10 at 473 and 90, 45, 30, 15 at 713."""
  x = jax.random.normal(jax.random.key(0), (1, side, side, 2))
  for b in (1, 2, 3, 6):
    np.testing.assert_allclose(
      window_avg_pool(x, side // b), adaptive_avg_pool(x, b), atol=1e-6
    )
  model = models.create("pspnet", num_classes=2, pool_crop=crop)
  assert model._side() == side


@pytest.mark.parametrize(("height", "width"), [(60, 90), (31, 7)])
def test_caffes_windows_at_other_sizes(height, width):
  """In ceil mode the last window averages over the pixels inside the map."""
  x = np.random.default_rng(0).standard_normal((1, height, width, 2))
  got = window_avg_pool(jnp.asarray(x, jnp.float32), 20)
  bins = -(-height // 20), -(-width // 20)
  assert got.shape == (1, *bins, 2)
  for i in range(bins[0]):
    for j in range(bins[1]):
      window = x[0, 20 * i : 20 * i + 20, 20 * j : 20 * j + 20]
      np.testing.assert_allclose(got[0, i, j], window.mean((0, 1)), atol=1e-6)


def test_caffe_form_has_the_same_parameters():
  fields = {"pool_crop": 473, "channel_dropout": False}
  model = models.create("pspnet", num_classes=21, **fields)
  outputs, variables = network_shapes(model, (473, 473))
  assert outputs["logits"].shape == (1, 473, 473, 21)
  assert variables["params"] == _shapes(50, 21)[1]["params"]


def test_pyramid_of_a_constant_is_constant():
  """Averages of a constant, in any bins and resized, are that constant."""
  conv = functools.partial(ConvNormAct, norm=None)
  pyramid = PyramidPooling((1, 2, 3, 6), conv=conv)
  x = jnp.broadcast_to(jnp.arange(8.0), (2, 11, 13, 8))
  y, variables = pyramid.init_with_output(jax.random.key(0), x, train=False)
  assert y.shape == (2, 11, 13, 8 + 4 * 2)
  assert set(variables["params"]) == {"bin1", "bin2", "bin3", "bin6"}
  np.testing.assert_array_equal(y[..., :8], x)
  np.testing.assert_allclose(
    y, np.broadcast_to(y[:, :1, :1], y.shape), rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize(
  ("name", "fields", "names"),
  [
    ("pspnett", {}, ["pspnett", "did you mean 'pspnet'"]),
    ("pspnet", {"head_feature": 3}, ["head_feature", "head_features"]),
    ("pspnet", {"backbone": "resnet51"}, ["resnet51", "resnet50"]),
    ("pspnet", {"norm": "bach"}, ["bach", "did you mean 'batch'"]),
    (
      "pspnet",
      {"backbone": {"name": "resnet50", "output_stride": 7}},
      ["output_stride=7", "8, 16, 32"],
    ),
  ],
)
def test_misspelt_fields_are_named(name, fields, names):
  with pytest.raises(UserError) as error:
    model = models.create(name, num_classes=2, **fields)
    model.init(jax.random.key(0), jnp.zeros((1, 9, 9, 3)), train=False)
  assert all(part in str(error.value) for part in names)
  assert "\n" not in str(error.value)
