"""The SegNets: published counts and sizes, parity with torch."""

import functools

from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import measure_receptive_field, network_shapes, total_size
from jaxseg.errors import UserError
from jaxseg.layers.pool import max_pool
from random_variables import lecun_normed
import torch_parity

# By arithmetic from the authors' prototxts, and for SegNet-Basic without biases
# from the paper.
COUNTS = [
  ("segnet", 11, {}, 29_449_355),
  ("segnet", 12, {}, 29_449_932),
  ("segnet", 21, {}, 29_455_125),
  ("bayesian_segnet", 11, {}, 29_449_355),
  ("segnet_basic", 11, {}, 1_416_587),
  ("segnet_basic", 12, {}, 1_416_652),
  ("segnet_basic", 11, {"use_bias": False}, 1_416_075),
]
VGG = {"name": "vgg16_bn", "width": 2}
TINY = {
  "segnet": {"backbone": VGG},
  "bayesian_segnet": {"backbone": VGG},
  "segnet_basic": {"features": 4},
}


def _create(name, num_classes=3, **fields):
  return models.create(
    name, num_classes=num_classes, **{**TINY[name], **fields}
  )


def _random(model, size, dtype=np.float32):
  return lecun_normed(network_shapes(model, size)[1], dtype)


@pytest.mark.parametrize(("name", "classes", "fields", "count"), COUNTS)
def test_published_parameter_counts(name, classes, fields, count):
  model = models.create(name, num_classes=classes, **fields)
  _, variables = network_shapes(model, (64, 64))
  assert total_size(variables["params"]) == count


def _maps(model, size):
  """Returns height, width and features of every submodule's output."""
  _, variables = network_shapes(model, size, capture_intermediates=True)
  flat = traverse_util.flatten_dict(variables["intermediates"], sep="/")
  return {
    path.removesuffix("/__call__"): value[0].shape[1:]
    for path, value in flat.items()
    if hasattr(value[0], "shape")
  }


def test_a_camvid_image_goes_through_23x30():
  """Sizes and widths are those of segnet_train.prototxt."""
  maps = _maps(models.create("segnet", num_classes=11), (360, 480))
  assert {name: maps[name] for name in maps if name.endswith("_d")} == {
    "conv5_3_d": (23, 30, 512),
    "conv5_2_d": (23, 30, 512),
    "conv5_1_d": (23, 30, 512),
    "conv4_3_d": (45, 60, 512),
    "conv4_2_d": (45, 60, 512),
    "conv4_1_d": (45, 60, 256),
    "conv3_3_d": (90, 120, 256),
    "conv3_2_d": (90, 120, 256),
    "conv3_1_d": (90, 120, 128),
    "conv2_2_d": (180, 240, 128),
    "conv2_1_d": (180, 240, 64),
    "conv1_2_d": (360, 480, 64),
  }
  assert maps["classifier"] == (360, 480, 11)


def test_basic_has_four_levels_of_64_features():
  maps = _maps(models.create("segnet_basic", num_classes=11), (360, 480))
  for s, size in enumerate(((360, 480), (180, 240), (90, 120), (45, 60)), 1):
    assert maps[f"conv{s}"] == maps[f"conv{s}_d"] == (*size, 64)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [(1, 1), (5, 2), (33, 47)])
def test_images_of_any_size(name, size):
  outputs, _ = network_shapes(_create(name), size)
  assert outputs["logits"].shape == (1, *size, 3)


def test_receptive_field_of_basics_deepest_features():
  field = measure_receptive_field(
    _create("segnet_basic"),
    (160, 160),
    layer="conv4",
    read=lambda x: max_pool(x, 2, ceil_mode=True),
  )
  assert field == ((106, 106), (16, 16))


@pytest.mark.parametrize("name", ["segnet", "segnet_basic"])
def test_initial_norms_are_the_published_ones(name):
  model = _create(name)
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0), jnp.ones((1, 1, 1, 3)))
  flat = traverse_util.flatten_dict(variables["params"], sep="/")
  norms = [path for path in flat if path.endswith("norm/bias")]
  assert len(norms) == (8 if name == "segnet_basic" else 13 + 12)
  for path in norms:
    np.testing.assert_allclose(flat[path], 0.001)
  assert model.norm().epsilon == 1e-9
  assert getattr(model, "backbone", model).norm().epsilon == 1e-9


def test_another_norm_reaches_encoder_and_decoder():
  model = _create("segnet", norm={"name": "batch", "epsilon": 1e-3})
  assert model.norm().epsilon == model.backbone.norm().epsilon == 1e-3


def _dropouts(model):
  seen = {}

  def record(next_function, args, kwargs, context):
    if isinstance(context.module, nn.Dropout):
      seen["/".join(context.module.path)] = context.module.rate
    return next_function(*args, **kwargs)

  with nn.intercept_methods(record):
    network_shapes(model, (9, 9))
  return seen


def test_dropout_of_bayesian_segnet():
  """It follows pools 3 to 5 and the decoder's stages 5 to 3."""
  places = [f"backbone/dropout{s}" for s in (3, 4, 5)]
  places += [f"dropout{s}_d" for s in (5, 4, 3)]
  model = models.create("bayesian_segnet", num_classes=11)
  assert _dropouts(model) == dict.fromkeys(places, 0.5)
  assert not _dropouts(models.create("segnet", num_classes=11))


@pytest.mark.parametrize(
  "backbone",
  ["resnet18", {"name": "vgg16_bn", "output_stride": 8}],
)
def test_a_backbone_without_maxima_is_refused(backbone):
  model = models.create("segnet", num_classes=3, backbone=backbone)
  with pytest.raises(UserError, match="expected a VGG") as error:
    network_shapes(model, (33, 33))
  assert "\n" not in str(error.value)


def _torch_layers(params):
  """Returns convolution with norm and ReLU, pooling, and unpooling."""
  torch = pytest.importorskip("torch")
  f = torch.nn.functional

  def conv(x, name, *, norm=True, act=True):
    inner = "/conv" if norm else ""
    kernel = params[f"{name}{inner}/kernel"].permute(3, 2, 0, 1)
    bias = params[f"{name}{inner}/bias"]
    x = f.conv2d(x, kernel, bias, 1, kernel.shape[-1] // 2)
    if norm:
      affine = (params[f"{name}/norm/{key}"] for key in ("scale", "bias"))
      x = f.batch_norm(x, None, None, *affine, training=True, eps=1e-9)
    return x.relu() if act else x

  pool = functools.partial(
    f.max_pool2d, kernel_size=2, ceil_mode=True, return_indices=True
  )
  return conv, pool, functools.partial(f.max_unpool2d, kernel_size=2)


def _torch_segnet(params, image):
  conv, pool, unpool = _torch_layers(params)
  depths = (2, 2, 3, 3, 3)
  x, switches, sizes = image, [], []
  for s, depth in enumerate(depths, start=1):
    for b in range(1, depth + 1):
      x = conv(x, f"backbone/conv{s}_{b}")
    sizes.append(x.shape[2:])
    x, places = pool(x)
    switches.append(places)
  for s in (5, 4, 3, 2, 1):
    x = unpool(x, switches.pop(), output_size=sizes.pop())
    for b in range(depths[s - 1], 0, -1):
      if s == b == 1:
        return conv(x, "classifier", norm=False, act=False)
      x = conv(x, f"conv{s}_{b}_d")


def _torch_basic(params, image):
  import torch

  conv, pool, unpool = _torch_layers(params)
  x = torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)(image)
  switches, sizes = [], []
  for s in (1, 2, 3, 4):
    x = conv(x, f"conv{s}")
    sizes.append(x.shape[2:])
    x, places = pool(x)
    switches.append(places)
  for s in (4, 3, 2, 1):
    x = unpool(x, switches.pop(), output_size=sizes.pop())
    x = conv(x, f"conv{s}_d", act=False)
  return conv(x, "classifier", norm=False, act=False)


@pytest.mark.torch
@pytest.mark.parametrize(
  ("name", "original"),
  [("segnet", _torch_segnet), ("segnet_basic", _torch_basic)],
)
def test_logits_and_gradients_equal_torchs(name, original):
  """In training, and in float64, where no ReLU or maximum flips."""
  size = (37, 46)
  image = 255 * np.random.default_rng(1).random((2, *size, 3))
  with jax.enable_x64():
    model = _create(name, dtype="float64", param_dtype="float64")
    variables = _random(model, size, np.float64)
    torch_parity.assert_equal(
      original, model, variables, image, train=True, floor=1e-3
    )
