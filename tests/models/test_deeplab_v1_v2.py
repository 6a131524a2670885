"""DeepLab v1 and v2: published counts, sizes and fields; parity with torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import measure_receptive_field, network_shapes, total_size
from jaxseg.models import deeplab_v1, deeplab_v2
from jaxseg.models.deeplab_v2 import scaled_size
import torch_parity

VGG = deeplab_v2.VARIANTS["vgg"]
# From papers and released prototxts, by arithmetic.
COUNTS = [
  ("deeplab_v1", 21, {}, 20_505_429),
  ("deeplab_v1", 11, {}, 20_495_179),
  ("deeplab_v1", 19, {}, 20_503_379),
  ("deeplab_v1", 21, deeplab_v1.VARIANTS["fov7x7"], 134_346_581),
  ("deeplab_v1", 21, deeplab_v1.VARIANTS["fov4x4"], 65_140_565),
  ("deeplab_v1", 21, deeplab_v1.VARIANTS["fov4x4_rate8"], 65_140_565),
  ("deeplab_v2", 21, {}, 44_048_532),
  ("deeplab_v2", 21, VGG, 37_877_652),
  ("deeplab_v2", 21, deeplab_v2.VARIANTS["vgg_aspp_s"], 37_877_652),
]
SIZES = (1, 1, 1, 1, 1)
NARROW = dict(name="vgg16", width=4, stage_sizes=SIZES)


def _shapes(name, size, num_classes=21, **fields):
  model = models.create(name, num_classes=num_classes, **fields)
  return network_shapes(model, size, capture_intermediates=True)


@pytest.mark.parametrize(("name", "classes", "fields", "count"), COUNTS)
def test_parameter_counts_are_published(name, classes, fields, count):
  _, variables = _shapes(name, (65, 65), classes, **fields)
  assert total_size(variables["params"]) == count


def test_multi_scale_branches_add_640_features():
  """Each branch has a 3x3 and a 1x1 of 128; fc8 reads 640 more features."""
  with_branches, without = (
    _shapes("deeplab_v1", (65, 65), multi_scale_features=n)[1]["params"]
    for n in (128, 0)
  )
  early = sum(9 * c * 128 + 128 for c in (3, 64, 128, 256, 512))
  added = early + 5 * (128 * 128 + 128) + 640 * 21
  assert total_size(with_branches) - total_size(without) == added


@pytest.mark.parametrize(
  ("size", "scores"),
  [((321, 321), (41, 41)), ((513, 513), (65, 65)), ((360, 480), (46, 61))],
)
@pytest.mark.parametrize("fields", [{}, {"multi_scale_features": 128}])
def test_scores_of_deeplab_v1(size, scores, fields):
  """n = 32 k - 31 pixels give 4 k - 3 scores; 360x480 needs ceil mode."""
  outputs, variables = _shapes("deeplab_v1", size, **fields)
  (fc8,) = variables["intermediates"]["fc8"]["__call__"]
  assert fc8.shape == (1, *scores, 21)
  assert outputs["logits"].shape == (1, *size, 21)


def test_scores_of_deeplab_v2_at_three_scales():
  assert [scaled_size((321, 321), s) for s in (0.5, 0.75, 1.0)] == [
    (161, 161),
    (241, 241),
    (321, 321),
  ]
  outputs, variables = _shapes("deeplab_v2", (321, 321))
  scores = variables["intermediates"]["aspp"]["__call__"]
  assert [x.shape[1:3] for x in scores] == [(21, 21), (31, 31), (41, 41)]
  assert set(outputs) == {
    "logits",
    "aux_logits_50",
    "aux_logits_75",
    "aux_logits_100",
  }


@pytest.mark.slow
@pytest.mark.parametrize(("average_pool", "side"), [(False, 419), (True, 435)])
def test_receptive_field_of_fc6(average_pool, side):
  model = models.create(
    "deeplab_v1",
    num_classes=2,
    features=4,
    average_pool=average_pool,
    backbone=dict(name="vgg16", width=4),
  )
  measured = measure_receptive_field(model, (521, 521), layer="head/fc6")
  assert measured == ((side, side), (8, 8))


@pytest.mark.slow
def test_logits_are_the_maximum_over_scales():
  model = models.create(
    "deeplab_v2",
    num_classes=3,
    backbone=dict(name="resnet18", width=4, stage_sizes=(1, 1, 1, 1)),
  )
  image = jax.random.normal(jax.random.key(0), (2, 33, 49, 3))
  outputs, _ = jax.jit(functools.partial(model.init_with_output, train=False))(
    jax.random.key(1), image
  )
  # Only at the pixels of the scores; in between both are interpolated.
  at = {key: np.asarray(x)[:, ::8, ::8] for key, x in outputs.items()}
  each = [x for key, x in at.items() if key != "logits"]
  assert len(each) == 3
  np.testing.assert_allclose(at["logits"], np.max(each, axis=0), atol=1e-6)
  assert all((at["logits"] == x).any() for x in each)


def _torch_vgg(x, flat, *, pools):
  """Applies a VGG of one 3x3 convolution per group, with DeepLab's pools."""
  torch = pytest.importorskip("torch")
  f = torch.nn.functional
  maps = [x]
  for i, (stride, dilation) in enumerate(
    zip(pools, (1, 1, 1, 1, 2), strict=True), start=1
  ):
    kernel = _kernel(flat, f"backbone/conv{i}_1/conv")
    x = f.conv2d(x, *kernel, padding=dilation, dilation=dilation).relu()
    x = f.max_pool2d(x, 3, stride, 1, ceil_mode=True)
    maps.append(x)
  return maps


def _kernel(flat, name):
  return flat[f"{name}/kernel"].permute(3, 2, 0, 1), flat[f"{name}/bias"]


def _torch_v1(flat, image, dilation):
  torch = pytest.importorskip("torch")
  f = torch.nn.functional
  maps = _torch_vgg(image, flat, pools=(2, 2, 2, 1, 1))
  x = f.avg_pool2d(maps[-1], 3, 1, 1)
  fc6 = _kernel(flat, "head/fc6")
  x = f.conv2d(x, *fc6, padding=dilation, dilation=dilation).relu()
  x = f.conv2d(x, *_kernel(flat, "head/fc7")).relu()
  parts = [x]
  if "multi_scale0/conv3x3/kernel" in flat:
    for i, stride in enumerate((8, 4, 2, 1, 1)):
      y = f.conv2d(
        maps[i],
        *_kernel(flat, f"multi_scale{i}/conv3x3"),
        stride=stride,
        padding=1,
      ).relu()
      y = f.conv2d(y, *_kernel(flat, f"multi_scale{i}/conv1x1"))
      parts.append(y.relu())
  x = f.conv2d(torch.cat(parts, 1), *_kernel(flat, "fc8"))
  return _zoom(x)


def _torch_v2(flat, image, rates):
  """Applies ASPP on VGG at three scales; returns the largest scores."""
  torch = pytest.importorskip("torch")
  f = torch.nn.functional
  resize = functools.partial(f.interpolate, mode="bilinear", align_corners=True)
  each = []
  for scale in (0.5, 0.75, 1.0):
    size = [round((side - 1) * scale) + 1 for side in image.shape[2:]]
    x = _torch_vgg(resize(image, size), flat, pools=(2, 2, 2, 1, 1))[-1]
    total = 0
    for rate in rates:
      fc6 = _kernel(flat, f"aspp/rate{rate}/fc6")
      y = f.conv2d(x, *fc6, padding=rate, dilation=rate).relu()
      y = f.conv2d(y, *_kernel(flat, f"aspp/rate{rate}/fc7")).relu()
      total = total + f.conv2d(y, *_kernel(flat, f"aspp/rate{rate}_fc8"))
    each.append(total)
  each = [resize(x, each[-1].shape[2:]) for x in each]
  return _zoom(torch.stack(each).amax(0))


def _zoom(x):
  """Applies Caffe's Interp by 8: (n - 1) * 8 + 1, corners aligned."""
  torch = pytest.importorskip("torch")
  size = [(side - 1) * 8 + 1 for side in x.shape[2:]]
  return torch.nn.functional.interpolate(
    x, size, mode="bilinear", align_corners=True
  )


@pytest.mark.torch
@pytest.mark.parametrize(
  ("name", "fields", "original"),
  [
    (
      "deeplab_v1",
      dict(features=8, dilation=2, multi_scale_features=4),
      functools.partial(_torch_v1, dilation=2),
    ),
    (
      "deeplab_v2",
      dict(hidden_features=8, rates=(1, 2, 3)),
      functools.partial(_torch_v2, rates=(1, 2, 3)),
    ),
  ],
  ids=["deeplab_v1", "deeplab_v2"],
)
def test_logits_and_gradients_equal_torchs(name, fields, original):
  model = models.create(name, num_classes=5, backbone=NARROW, **fields)
  rng = np.random.default_rng(0)
  # 32 k - 31, where all strides divide the size minus one, and larger than
  # the field of the pyramid.
  image = rng.standard_normal((2, 65, 97, 3)).astype(np.float32)
  variables = jax.jit(functools.partial(model.init, train=False))(
    jax.random.key(0), jnp.asarray(image)
  )
  # Initial biases are zero and initial scores small; enlarge both.
  variables = jax.tree.map(
    lambda a: np.float32(
      rng.standard_normal(a.shape) * (0.1 if a.ndim == 1 else a.std() + 0.1)
    ),
    variables,
  )
  torch_parity.assert_equal(original, model, variables, image, train=False)
