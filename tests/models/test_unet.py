"""U-Net: published counts and sizes, mirroring, tiles, and torch's numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import network_shapes, total_size
from jaxseg.errors import UserError
from jaxseg.models import unet
from random_variables import he_normed
import torch_parity

RELEASED = unet.VARIANTS["released"]
MILESIAL = {"norm": "batch", **unet.VARIANTS["milesial"]}
# (classes, channels, fields, parameters): of the authors' figure, ports of
# their released network, milesial's repository, and mmsegmentation's backbone
# (28,949,568) with a 1x1 classifier.
COUNTS = [
  (2, 1, {}, 31_030_658),
  (2, 3, {}, 31_031_810),
  (21, 3, {}, 31_033_045),
  (1, 1, {}, 31_030_593),
  (2, 1, RELEASED, 31_100_354),
  (1, 3, MILESIAL, 31_037_633),
  (2, 3, MILESIAL, 31_037_698),
  (2, 1, MILESIAL, 31_036_546),
  (19, 3, MILESIAL, 31_038_803),
  (21, 3, MILESIAL, 31_038_933),
  (1, 3, {**MILESIAL, "upsample": "bilinear"}, 17_262_977),
  (2, 3, {**MILESIAL, "upsample": "bilinear"}, 17_263_042),
  (19, 3, {**MILESIAL, "upsample": "bilinear"}, 17_264_147),
  (21, 3, {**MILESIAL, "upsample": "bilinear"}, 17_264_277),
  (1, 3, {**MILESIAL, "upsample": "bilinear_conv"}, 28_949_568 + 65),
]
# Parameters of segmentation_models_pytorch's Unet with one class.
BACKBONES = {
  "resnet18": 14_328_209,
  "resnet34": 24_436_369,
  "resnet50": 32_521_105,
  "resnet101": 51_513_233,
  "se_resnet50": 35_052_097,
  "se_resnext50_32x4d": 34_523_969,
  "vgg16_bn": 23_756_689,
  "densenet121": 13_607_633,
  # jaxseg's backbone lacks the 1x1 convolution to 1280, which smp's U-Net does
  # not read. Its skip has 16 features instead of the stem's 32.
  "efficientnet_b0": 6_251_469 - (320 * 1280 + 2 * 1280) - 16 * 9 * 32,
  # The same, with 448 to 1792 features and skips of 24 and 48.
  "efficientnet_b4": 20_225_689 - (448 * 1792 + 2 * 1792) - 24 * 9 * 32,
  # jaxseg's backbone lacks the 1x1 convolution to 1280 that smp's U-Net reads.
  "mobilenet_v2": 6_628_945 - (320 * 1280 + 2 * 1280) - 960 * 9 * 256,
}
# Parameters of the five blocks between the backbone and the classifier.
DECODERS = {"resnet34": 3_151_552, "resnet50": 9_012_928}
# orobix/retina-unet, with three levels.
RETINA = dict(
  padding="same",
  upsample="nearest",
  dropout_levels=(),
  block_dropout_rate=0.2,
)
NARROW = dict(features=(4, 6, 8), dropout_levels=(3,))


def _shapes(name, size, *, classes=2, channels=3, capture=False, **fields):
  model = models.create(name, num_classes=classes, **fields)
  return network_shapes(
    model, size, channels=channels, capture_intermediates=capture
  )


@pytest.mark.parametrize(("classes", "channels", "fields", "count"), COUNTS)
def test_parameter_counts_are_published(classes, channels, fields, count):
  _, variables = _shapes(
    "unet", (16, 16), classes=classes, channels=channels, **fields
  )
  assert total_size(variables["params"]) == count


@pytest.mark.parametrize("backbone", BACKBONES)
def test_parameter_counts_on_backbones(backbone):
  outputs, variables = _shapes(
    "unet_backbone",
    (65, 97),
    classes=1,
    backbone=backbone,
    centre=backbone.startswith("vgg"),
  )
  params = variables["params"]
  assert total_size(params) == BACKBONES[backbone]
  blocks = {k: v for k, v in params.items() if k.startswith("up")}
  assert total_size(blocks) == DECODERS.get(backbone, total_size(blocks))
  assert outputs["logits"].shape == (1, 65, 97, 1)


@pytest.mark.parametrize("backbone", ["alexnet", "googlenet", "xception41"])
def test_other_backbones(backbone):
  outputs, _ = _shapes("unet_backbone", (75, 98), backbone=backbone)
  assert outputs["logits"].shape == (1, 75, 98, 2)


def test_a_dilated_backbone_needs_fewer_upsamplings():
  outputs, variables = _shapes(
    "unet_backbone",
    (65, 97),
    capture=True,
    backbone=dict(name="resnet18", output_stride=8),
  )
  maps = {
    key: value["__call__"][0].shape[1:3]
    for key, value in variables["intermediates"].items()
    if key.endswith("conv2")
  }
  assert maps == {
    "up4_conv2": (9, 13),
    "up3_conv2": (9, 13),
    "up2_conv2": (17, 25),
    "up1_conv2": (33, 49),
    "up0_conv2": (65, 97),
  }


def test_sizes_of_the_figure():
  """Sides of all maps are those of Fig. 1."""
  outputs, variables = _shapes(
    "unet", (572, 572), channels=1, capture=True, mirrored=False
  )
  sides = {
    key: value["__call__"][0].shape[1]
    for key, value in variables["intermediates"].items()
    if key.startswith(("up", "down"))
  }
  down = dict(down1=568, down2=280, down3=136, down4=64, down5=28)
  enlarged = dict(upsample4=56, upsample3=104, upsample2=200, upsample1=392)
  up = dict(up4=52, up3=100, up2=196, up1=388)
  assert sides == {**down, **enlarged, **up}
  assert outputs["logits"].shape == (1, 388, 388, 2)


def test_valid_sizes():
  table = [(188, 4), (204, 20), (556, 372), (572, 388), (588, 404)]
  for taken, given in table:
    assert unet.valid_sizes(given) == (taken, given)
    assert unet.valid_sizes(given - 15) == (taken, given)
  assert unet.valid_margin() == 184


def _network(**fields):
  """Returns a narrow network, random variables, and an image."""
  model = models.create("unet", num_classes=3, **{**NARROW, **fields})
  rng = np.random.default_rng(0)
  image = rng.standard_normal((2, 23, 30, 3)).astype(np.float32)
  _, shapes = network_shapes(model, image.shape[1:3])
  return model, he_normed(shapes, rng, bias=0.1), image


def _apply(model, variables, image):
  run = jax.jit(functools.partial(model.apply, train=False))
  return np.asarray(run(variables, jnp.asarray(image))["logits"])


def test_the_image_is_padded_by_reflection():
  model, variables, image = _network()
  # Two poolings: 4 b + 12 pixels become 4 b - 28.
  margin, (h, w) = 20, (24, 32)
  pads = [(0, 0), (margin, h + margin - 23), (margin, w + margin - 30), (0, 0)]
  padded = np.pad(image, pads, mode="reflect")
  inner = _apply(model.clone(mirrored=False), variables, padded)
  assert inner.shape == (2, h, w, 3)
  np.testing.assert_allclose(
    _apply(model, variables, image), inner[:, :23, :30], atol=1e-5
  )


def test_tiles_are_seamless():
  """Tiles of a multiple of 4 pixels, for two poolings, equal the whole."""
  model, variables, image = _network()
  tiled = jax.jit(functools.partial(unet.overlap_tile, model, tile=12))(
    variables, jnp.asarray(image)
  )
  whole = _apply(model, variables, image)
  assert tiled.shape == whole.shape
  np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize("padding", unet.PADDINGS)
def test_every_skip_and_every_upsampled_map_is_read(padding):
  model, variables, image = _network(padding=padding)
  image = jnp.asarray(image)

  def total(params):
    logits = model.apply({"params": params}, image, train=False)["logits"]
    return jnp.sum(logits**2)

  grads = jax.jit(jax.grad(total))(variables["params"])
  for level, skip in enumerate(model.features[:-1], start=1):
    kernel = grads[f"up{level}"]["conv1"]["conv"]["kernel"]
    assert kernel.shape[2] == 2 * skip
    for half in (kernel[:, :, :skip], kernel[:, :, skip:]):
      assert (np.abs(half).max(axis=(0, 1, 3)) > 0).any()


def test_errors_are_one_line():
  small = functools.partial(_shapes, "unet", (9, 40))
  with pytest.raises(UserError, match="9x40.*16 pixels or more"):
    small(padding="same")
  with pytest.raises(UserError, match="such as 204"):
    _shapes("unet", (190, 188), mirrored=False)
  with pytest.raises(UserError, match="bilinear"):
    small(upsample="bilinaer")
  with pytest.raises(UserError, match="valid"):
    small(padding="vlaid")
  with pytest.raises(UserError, match="five"):
    _shapes("unet_backbone", (64, 64), decoder_features=(8, 8))
  with pytest.raises(UserError, match="nearest"):
    _shapes("unet_backbone", (64, 64), upsample="nearset")


def _torch_retina(params, x):
  """Applies the U-Net of orobix/retina-unet without its dropout."""
  torch = pytest.importorskip("torch")
  f = torch.nn.functional

  def conv(x, name, padding=1):
    kernel = params[f"{name}/kernel"].permute(3, 2, 0, 1)
    return f.conv2d(x, kernel, params[f"{name}/bias"], padding=padding)

  def block(x, name):
    x = conv(x, f"{name}/conv1/conv").relu()
    return conv(x, f"{name}/conv2/conv").relu()

  double = torch.nn.Upsample(scale_factor=2)
  fine = block(x, "down1")
  middle = block(f.max_pool2d(fine, 2), "down2")
  coarse = block(f.max_pool2d(middle, 2), "down3")
  x = block(torch.cat([middle, double(coarse)], 1), "up2")
  x = block(torch.cat([fine, double(x)], 1), "up1")
  return conv(x, "classifier", padding=0)


@pytest.mark.torch
def test_the_retina_network_equals_torchs():
  model, variables, image = _network(**RETINA)
  torch_parity.assert_equal(
    _torch_retina, model, variables, image[:, :20, :28], train=False
  )


def test_dropout_inside_a_block_precedes_the_second_convolution():
  model, variables, image = _network(**{**RETINA, "block_dropout_rate": 1.0})
  logits = jax.jit(functools.partial(model.apply, train=True))(
    variables, jnp.asarray(image), rngs={"dropout": jax.random.key(0)}
  )["logits"]
  # Only the biases of the last layers are left.
  params = variables["params"]
  x = jax.nn.relu(params["up1"]["conv2"]["conv"]["bias"])
  expected = x @ params["classifier"]["kernel"][0, 0]
  expected += params["classifier"]["bias"]
  np.testing.assert_allclose(
    logits, jnp.broadcast_to(expected, logits.shape), rtol=1e-5
  )


def _torch_unet(params, x, model):
  """Applies the paper's network, channels first, level by level."""
  torch = pytest.importorskip("torch")
  f = torch.nn.functional

  def conv(x, name):
    kernel = params[f"{name}/conv/kernel"].permute(3, 2, 0, 1)
    return f.conv2d(x, kernel, params[f"{name}/conv/bias"]).relu()

  def block(x, name):
    return conv(conv(x, f"{name}/conv1"), f"{name}/conv2")

  # Two poolings: 23 and 30 pixels need 24 and 32.
  x = f.pad(x, (20, 22, 20, 21), mode="reflect")
  maps, depth = [], len(model.features)
  for level in range(1, depth + 1):
    x = block(f.max_pool2d(x, 2) if maps else x, f"down{level}")
    maps.append(x)
  for level in range(depth - 1, 0, -1):
    skip = maps[level - 1]
    kernel = params[f"upsample{level}/kernel"].permute(2, 3, 0, 1)
    bias = params[f"upsample{level}/bias"]
    x = f.conv_transpose2d(x, kernel, bias, stride=2)
    x = x.relu() if model.act_upsampled else x
    cut = (skip.shape[2] - x.shape[2]) // 2
    skip = skip[:, :, cut:-cut, cut:-cut]
    parts = [skip, x] if model.skip_first else [x, skip]
    x = block(torch.cat(parts, 1), f"up{level}")
  kernel = params["classifier/kernel"].permute(3, 2, 0, 1)
  x = f.conv2d(x, kernel, params["classifier/bias"])
  return x[:, :, :23, :30]


@pytest.mark.torch
@pytest.mark.parametrize(
  "fields",
  [{}, {**RELEASED, "up_features": (6, 6)}],
  ids=["figure", "released"],
)
def test_logits_and_gradients_equal_torchs(fields):
  """Both the network of Fig. 1 and the released one are compared."""
  model, variables, image = _network(**fields)
  original = functools.partial(_torch_unet, model=model)
  torch_parity.assert_equal(original, model, variables, image, train=False)
