"""DeconvNet: published counts and sizes, small images, parity with torch."""

import functools

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import network_shapes, total_size
from jaxseg.errors import UserError
from random_variables import lecun_normed
import torch_parity

TINY = {
  "backbone": {"name": "vgg16_bn", "width": 2},
  "fc_features": 6,
  "fc_kernel": 2,
}


def _create(num_classes=3, **fields):
  return models.create(
    "deconvnet", num_classes=num_classes, **{**TINY, **fields}
  )


def _random(model, size, dtype=np.float32):
  return lecun_normed(network_shapes(model, size)[1], dtype)


@pytest.mark.parametrize(
  ("classes", "fields", "count"),
  [
    # Layers of the authors' prototxt; 1024 features are those of SegNet's
    # benchmark.
    (21, {}, 251_805_653),
    (11, {}, 251_805_003),
    (21, {"fc_features": 1024}, 81_917_909),
    (11, {"fc_features": 1024}, 81_917_259),
  ],
)
def test_published_parameter_counts(classes, fields, count):
  model = models.create("deconvnet", num_classes=classes, **fields)
  _, variables = network_shapes(model, (224, 224))
  assert total_size(variables["params"]) == count
  flat = traverse_util.flatten_dict(variables["params"], sep="/")
  # 13 convolutions, 2 dense layers, 14 deconvolutions.
  assert sum(path.endswith("norm/scale") for path in flat) == 29


def test_maps_have_the_published_sizes():
  """At 224x224 the encoder ends in one vector and the decoder mirrors it."""
  model = models.create("deconvnet", num_classes=21)
  _, variables = network_shapes(model, (224, 224), capture_intermediates=True)
  seen = variables["intermediates"]
  pools = seen["backbone"]["__call__"][0]
  assert [pools[f"c{s}"].shape[1:] for s in range(1, 6)] == [
    (112, 112, 64), (56, 56, 128), (28, 28, 256), (14, 14, 512), (7, 7, 512),
  ]  # fmt: skip
  maps = {
    "fc6": (1, 4096), "fc7": (1, 4096), "fc6_deconv": (7, 512),
    "deconv5_1": (14, 512), "deconv5_2": (14, 512), "deconv5_3": (14, 512),
    "deconv4_1": (28, 512), "deconv4_2": (28, 512), "deconv4_3": (28, 256),
    "deconv3_1": (56, 256), "deconv3_2": (56, 256), "deconv3_3": (56, 128),
    "deconv2_1": (112, 128), "deconv2_2": (112, 64),
    "deconv1_1": (224, 64), "deconv1_2": (224, 64), "score": (224, 21),
  }  # fmt: skip
  for name, (side, features) in maps.items():
    shape = seen[name]["__call__"][0].shape
    assert shape == (1, side, side, features), name


@pytest.mark.parametrize("size", [(1, 1), (64, 250), (256, 321)])
def test_images_of_any_size(size):
  outputs, _ = network_shapes(models.create("deconvnet", num_classes=21), size)
  assert outputs["logits"].shape == (1, *size, 21)


def test_a_small_image_is_zero_padded():
  """It is padded to 33 pixels, where the fifth ceil-mode pool is 2x2."""
  model = _create(backbone={**TINY["backbone"], "stage_sizes": (1,) * 5})
  image = jax.random.normal(jax.random.key(0), (1, 20, 25, 3))
  variables = _random(model, (20, 25))
  apply = jax.jit(functools.partial(model.apply, train=False))
  small = apply(variables, image)["logits"]
  filled = jnp.pad(image, ((0, 0), (0, 13), (0, 8), (0, 0)))
  np.testing.assert_allclose(
    small, apply(variables, filled)["logits"][:, :20, :25], atol=1e-5
  )


def test_a_backbone_without_maxima_is_refused():
  with pytest.raises(UserError, match="expected a VGG") as error:
    network_shapes(_create(backbone="resnet18"), (33, 33))
  assert "\n" not in str(error.value)


def _torch(params, image):
  """Applies DeconvNet's prototxt, layer by layer, to PyTorch tensors."""
  torch = pytest.importorskip("torch")
  f = torch.nn.functional

  def normalised(x, name):
    affine = (params[f"{name}/norm/{key}"] for key in ("scale", "bias"))
    return f.batch_norm(x, None, None, *affine, training=True, eps=1e-9).relu()

  def conv(x, name, padding=1):
    kernel = params[f"{name}/conv/kernel"].permute(3, 2, 0, 1)
    x = f.conv2d(x, kernel, params[f"{name}/conv/bias"], 1, padding)
    return normalised(x, name)

  def deconv(x, name, padding=1):
    # Transposed kernels are [in, out, k, k] in torch.
    kernel = params[f"{name}/conv/kernel"].permute(2, 3, 0, 1)
    x = f.conv_transpose2d(x, kernel, params[f"{name}/conv/bias"], 1, padding)
    return normalised(x, name)

  depths = (2, 2, 3, 3, 3)
  x, switches, sizes = image, [], []
  for s, depth in enumerate(depths, start=1):
    for b in range(1, depth + 1):
      x = conv(x, f"backbone/conv{s}_{b}")
    sizes.append(x.shape[2:])
    x, places = f.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    switches.append(places)
  x = conv(conv(x, "fc6", 0), "fc7", 0)
  x = deconv(x, "fc6_deconv", 0)
  for s in (5, 4, 3, 2, 1):
    x = f.max_unpool2d(x, switches.pop(), 2, output_size=sizes.pop())
    for b in range(1, depths[s - 1] + 1):
      x = deconv(x, f"deconv{s}_{b}")
  kernel = params["score/kernel"].permute(3, 2, 0, 1)
  return f.conv2d(x, kernel, params["score/bias"])


@pytest.mark.torch
def test_logits_and_gradients_equal_torchs():
  """In training, and in float64, where no ReLU or maximum flips."""
  size = (75, 102)  # The map of the fifth pool is 3x4, that of fc6 2x3.
  image = np.random.default_rng(1).standard_normal((2, *size, 3))
  with jax.enable_x64():
    model = _create(dtype="float64", param_dtype="float64")
    variables = _random(model, size, np.float64)
    torch_parity.assert_equal(
      _torch, model, variables, image, train=True, floor=1e-3
    )
