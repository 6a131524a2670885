"""Published parameter counts, channels and map sizes, by shape inference."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

from jaxseg import backbones, models
from jaxseg.errors import UserError

HEIGHT, WIDTH = 224, 225  # one even, one odd
CLASSES = 1000

# Parameters of the classifier with 1000 classes, and without its last dense
# layer. (t): torchvision, counted on its instantiated models; `num_params` of
# the published weights agrees. (s): hujie-frank/SENet's prototxts by layer
# arithmetic, ratio 16 with biases. (m): timm's xception41 and xception65,
# which equal TensorFlow DeepLab's. (b): BVLC's bvlc_reference_caffenet by
# layer arithmetic.
PARAMETERS = {
  "alexnet": (61_100_840, 57_003_840),  # t
  "caffenet": (60_965_224, 56_868_224),  # b
  "vgg11": (132_863_336, 128_766_336),  # t
  "vgg13": (133_047_848, 128_950_848),  # t
  "vgg16": (138_357_544, 134_260_544),  # t
  "vgg19": (143_667_240, 139_570_240),  # t
  "vgg11_bn": (132_868_840, 128_771_840),  # t
  "vgg13_bn": (133_053_736, 128_956_736),  # t
  "vgg16_bn": (138_365_992, 134_268_992),  # t
  "vgg19_bn": (143_678_248, 139_581_248),  # t
  "googlenet": (13_004_888, 11_979_888),  # t
  "resnet18": (11_689_512, 11_176_512),  # t
  "resnet34": (21_797_672, 21_284_672),  # t
  "resnet50": (25_557_032, 23_508_032),  # t
  "resnet101": (44_549_160, 42_500_160),  # t
  "resnet152": (60_192_808, 58_143_808),  # t
  "resnext50_32x4d": (25_028_904, 22_979_904),  # t
  "resnext101_32x8d": (88_791_336, 86_742_336),  # t
  "se_resnet50": (28_088_024, 26_039_024),  # s
  "se_resnet101": (49_326_872, 47_277_872),  # s
  "se_resnet152": (66_821_848, 64_772_848),  # s
  "se_resnext50_32x4d": (27_559_896, 25_510_896),  # s
  "densenet121": (7_978_856, 6_953_856),  # t
  "densenet161": (28_681_000, 26_472_000),  # t
  "densenet169": (14_149_480, 12_484_480),  # t
  "densenet201": (20_013_928, 18_092_928),  # t
  "efficientnet_b0": (5_288_548, 4_007_548),  # t
  "efficientnet_b1": (7_794_184, 6_513_184),  # t
  "efficientnet_b2": (9_109_994, 7_700_994),  # t
  "efficientnet_b3": (12_233_232, 10_696_232),  # t
  "efficientnet_b4": (19_341_616, 17_548_616),  # t
  "efficientnet_b5": (30_389_784, 28_340_784),  # t
  "efficientnet_b6": (43_040_704, 40_735_704),  # t
  "efficientnet_b7": (66_347_960, 63_786_960),  # t
  "xception41": (26_969_560, 24_920_560),  # m
  "xception65": (39_916_312, 37_867_312),  # m
  "mobilenet_v2": (3_504_872, 2_223_872),  # t
}

# Running means and variances, counted on torchvision's models.
STATISTICS = {
  "vgg16": 0,
  "vgg16_bn": 8_448,
  "resnet18": 9_600,
  "resnet34": 17_024,
  "resnet50": 53_120,
  "resnet101": 105_344,
  "resnet152": 151_424,
  "resnext50_32x4d": 68_224,
  "resnext101_32x8d": 202_880,
  "densenet121": 83_648,
  "densenet161": 219_936,
  "densenet169": 158_400,
  "densenet201": 229_056,
  "mobilenet_v2": 34_112,
}

# Parameters of the trunk of networks whose head has more than one layer.
TRUNKS = {
  "alexnet": 2_469_696,  # torchvision's `features`
  # FCN-AlexNet with 21 classes, 56,954,261, minus fc6, fc7 and scores.
  "caffenet": 56_954_261 - 37_752_832 - 16_781_312 - 86_037,
  "vgg16": 14_714_688,
  "vgg16_bn": 14_723_136,
  # torchvision without auxiliary heads, minus the dense layer.
  "googlenet": 6_624_904 - 1_025_000,
  # Minus the 1x1 convolution of the head and its norm.
  "mobilenet_v2": 2_223_872 - 320 * 1280 - 2 * 1280,
  "efficientnet_b0": 4_007_548 - 320 * 1280 - 2 * 1280,
}

# Channels of c1 to c5: from the papers' tables, which agree with the encoders
# of segmentation_models.pytorch (EfficientNet: c2 to c5); Xception's from
# timm's feature extractor.
CHANNELS = {
  "alexnet": (64, 192, 256, 256),
  "caffenet": (96, 256, 256, 256),
  "vgg": (64, 128, 256, 512, 512),
  "googlenet": (64, 192, 480, 832, 1024),
  "resnet18": (64, 64, 128, 256, 512),
  "resnet34": (64, 64, 128, 256, 512),
  "resne": (64, 256, 512, 1024, 2048),
  "se_resne": (64, 256, 512, 1024, 2048),
  "densenet121": (64, 256, 512, 1024, 1024),
  "densenet161": (96, 384, 768, 2112, 2208),
  "densenet169": (64, 256, 512, 1280, 1664),
  "densenet201": (64, 256, 512, 1792, 1920),
  "efficientnet_b0": (16, 24, 40, 112, 320),
  "efficientnet_b1": (16, 24, 40, 112, 320),
  "efficientnet_b2": (16, 24, 48, 120, 352),
  "efficientnet_b3": (24, 32, 48, 136, 384),
  "efficientnet_b4": (24, 32, 56, 160, 448),
  "efficientnet_b5": (24, 40, 64, 176, 512),
  "efficientnet_b6": (32, 40, 72, 200, 576),
  "efficientnet_b7": (32, 48, 80, 224, 640),
  "xception": (128, 256, 728, 1024, 2048),
  "mobilenet_v2": (16, 24, 32, 96, 320),
}


def by_prefix(table, name):
  """Returns the entry of the longest key that `name` starts with."""
  return table[max((k for k in table if name.startswith(k)), key=len)]


def half(n):  # a stride of 2 with symmetric padding
  return math.ceil(n / 2)


def map_sizes(name: str, n: int) -> list[int]:
  """Returns the sides of c1 to c5 by the arithmetic of the layer list."""
  halves = [half(n)]
  for _ in range(4):
    halves.append(half(halves[-1]))
  if name.startswith("vgg"):
    return [n // 2**level for level in range(1, 6)]
  if name.startswith("densenet"):  # Transitions drop an odd last row.
    return [*halves[:2], *(halves[1] // 2**i for i in (1, 2, 3))]
  if name == "googlenet":
    # ceil((m - 3) / 2) + 1 = floor(m / 2) three times, then ceil(m / 2).
    c1 = half(n)
    c4 = c1 // 2 // 2 // 2
    return [c1, c1 // 2, c1 // 2 // 2, c4, half(c4)]
  if name in ("alexnet", "caffenet"):
    ceil = name == "caffenet"
    sizes = [(n + (0 if ceil else 4) - 11) // 4 + 1]
    for _ in range(3):
      sizes.append((sizes[-1] - 3 + ceil) // 2 + 1)
    return sizes
  return halves


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@functools.cache
def traced(name: str):
  """Returns shapes of the variables, features and outputs of a classifier."""
  model = models.create("classifier", num_classes=CLASSES, backbone=name)

  def init(key):
    return model.apply(
      {},
      jnp.zeros((2, HEIGHT, WIDTH, 3)),
      train=False,
      rngs={"params": key},
      mutable=True,
      capture_intermediates=lambda module, method: (
        (module.name, method) == ("backbone", "__call__")
      ),
    )

  outputs, variables = jax.eval_shape(init, jax.random.key(0))
  (features,) = variables["intermediates"]["backbone"]["__call__"]
  return variables, features, outputs


each_backbone = pytest.mark.parametrize("name", list(backbones.BACKBONES))


def test_the_tables_name_every_backbone():
  assert PARAMETERS.keys() == backbones.BACKBONES.keys()


@each_backbone
def test_parameter_counts(name):
  variables, _, _ = traced(name)
  params = variables["params"]
  total, without_classifier = PARAMETERS[name]
  assert count(params) == total
  assert total - count(params["head"]["classifier"]) == without_classifier
  if name in STATISTICS:
    assert count(variables.get("batch_stats", {})) == STATISTICS[name]
  if name in TRUNKS:
    assert count(params["backbone"]) == TRUNKS[name]


@each_backbone
def test_levels_have_their_channels_and_sizes(name):
  _, features, outputs = traced(name)
  levels = [f"c{i}" for i in range(1, 6) if f"c{i}" in features]
  missing = ["c1"] if name in ("alexnet", "caffenet") else []
  assert [f"c{i}" for i in range(1, 6)] == missing + levels
  sizes = zip(map_sizes(name, HEIGHT), map_sizes(name, WIDTH), strict=True)
  for level, size, channels in zip(
    levels, sizes, by_prefix(CHANNELS, name), strict=True
  ):
    assert features[level].shape == (2, *size, channels), level
    # Sizes follow the nominal strides within a pixel, or two without padding.
    assert abs(size[0] - HEIGHT / 2 ** int(level[1])) <= 2
  for logits in outputs.values():
    assert logits.shape == (2, CLASSES) and logits.dtype == jnp.float32


def test_googlenet_without_auxiliary_heads_and_with_true_5x5():
  variables, _, outputs = traced("googlenet")
  assert set(outputs) == {"logits", "aux_4a", "aux_4d"}
  params = {k: v for k, v in variables["params"].items() if "aux" not in k}
  assert count(params) == 6_624_904
  model = models.create(
    "classifier",
    num_classes=CLASSES,
    aux=False,
    backbone={"name": "googlenet", "branch3_kernel": 5},
  )
  shapes = jax.eval_shape(
    lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False),
    jax.random.key(0),
  )
  # The sum over 3a ... 5b of (25 - 9) * reduce * features more.
  assert count(shapes["params"]) == 7_005_832


def test_norms_have_their_papers_epsilon_unless_one_is_given():
  expected = {
    "resnet50": (1e-5, 0.9),
    "googlenet": (1e-3, 0.9),
    "efficientnet_b4": (1e-5, 0.9),
    "efficientnet_b5": (1e-3, 0.99),
    "xception65": (1e-3, 0.9997),
  }
  for name, want in expected.items():
    norm = backbones.create(name).norm()
    assert (norm.epsilon, norm.momentum) == want
  model = models.create(
    "classifier",
    num_classes=2,
    backbone="xception65",
    norm={"name": "batch", "epsilon": 1e-4},
  )
  assert model.backbone.norm().epsilon == 1e-4


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("name", ["resnet18", "vgg11", "densenet121"])
def test_output_stride_is_the_last_maps(name, output_stride):
  backbone = backbones.create(name, output_stride=output_stride)
  features, _ = jax.eval_shape(
    lambda key: backbone.init_with_output(
      key, jnp.zeros((1, 64, 96, 3)), train=False
    ),
    jax.random.key(0),
  )
  for level in range(1, 6):
    stride = min(2**level, output_stride)
    assert features[f"c{level}"].shape[1:3] == (64 // stride, 96 // stride)


def test_user_errors():
  with pytest.raises(UserError, match="unknown backbone 'resnet51'"):
    backbones.create("resnet51")
  with pytest.raises(UserError, match="unknown field of vgg16 'width_mult'"):
    backbones.create({"name": "vgg16", "width_mult": 2})
  image = jnp.zeros((1, 32, 32, 3))
  for fields, message in (
    ({"output_stride": 12}, r"output_stride=12: expected one of \[2, 4, 8"),
    ({"stem": "depp"}, "model.backbone.stem 'depp' .did you mean 'deep'"),
  ):
    backbone = backbones.create("resnet18", **fields)
    with pytest.raises(UserError, match=message):
      backbone.init(jax.random.key(0), image, train=False)
