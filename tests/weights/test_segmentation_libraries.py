"""Names and fields of whole segmentation networks in other libraries."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import cli, models, weights
from jaxseg.errors import UserError
from jaxseg.weights import network_fields, paths, segmentation
from jaxseg.weights.pytorch import TORCH_NAMES

SMALL = {"name": "resnet50", "width": 4, "stage_sizes": (1, 1, 1, 1)}
NARROW = {
  "fcn_resnet": {"backbone": SMALL},
  "deeplab_v3": {"backbone": SMALL, "features": 4},
  "deeplab_v3plus": {"backbone": SMALL, "features": 4, "low_level_features": 2},
  "pspnet": {"backbone": SMALL, "head_features": 4, "aux_features": 4},
  "unet": {"features": (2, 4, 8)},
  "unet_backbone": {"backbone": SMALL},
}
CASES = [
  (library, name)
  for library, networks in segmentation.FIELDS.items()
  for name in networks
]
# Some of the names in each library's own code: layers of a sequence, pooling of
# the whole image, the last layer.
EXAMPLES = {
  ("torchvision", "fcn_resnet"): {
    "backbone.conv1.weight", "backbone.layer4.0.downsample.1.running_var",
    "classifier.0.weight", "classifier.4.bias", "aux_classifier.1.bias",
  },
  ("torchvision", "deeplab_v3"): {
    "classifier.0.convs.0.0.weight", "classifier.0.convs.3.1.running_mean",
    "classifier.0.convs.4.1.weight", "classifier.0.project.0.weight",
    "classifier.1.weight", "classifier.4.weight", "aux_classifier.4.weight",
  },
  ("semseg", "pspnet"): {
    "layer0.0.weight", "layer0.7.running_mean", "layer3.0.conv2.weight",
    "ppm.features.0.1.weight", "ppm.features.3.2.bias", "cls.1.weight",
    "cls.4.bias", "aux.0.weight",
  },
  ("vainf", "deeplab_v3"): {
    "backbone.bn1.bias", "classifier.classifier.0.convs.2.0.weight",
    "classifier.classifier.1.weight", "classifier.classifier.4.bias",
  },
  ("vainf", "deeplab_v3plus"): {
    "classifier.project.0.weight", "classifier.aspp.convs.4.2.bias",
    "classifier.aspp.project.1.weight", "classifier.classifier.0.weight",
    "classifier.classifier.3.bias",
  },
  ("milesial", "unet"): {
    "inc.double_conv.0.weight", "down2.maxpool_conv.1.double_conv.4.bias",
    "up1.up.bias", "up2.conv.double_conv.3.weight", "outc.conv.weight",
  },
  ("smp", "unet_backbone"): {
    "encoder.layer1.0.conv3.weight", "decoder.blocks.0.conv1.0.weight",
    "decoder.blocks.4.conv2.1.running_var", "segmentation_head.0.weight",
  },
  ("smp", "deeplab_v3"): {
    "decoder.aspp.convs.4.1.weight", "decoder.conv.weight",
    "decoder.bn.running_var", "segmentation_head.0.bias",
  },
  ("smp", "deeplab_v3plus"): {
    "decoder.aspp.0.convs.1.0.0.weight", "decoder.aspp.0.convs.1.0.1.weight",
    "decoder.aspp.0.convs.3.1.bias", "decoder.aspp.1.0.weight",
    "decoder.aspp.2.running_mean", "decoder.block1.0.weight",
    "decoder.block2.0.1.weight", "decoder.block2.1.bias",
  },
}  # fmt: skip


def narrow(library, name, **fields):
  """Builds a network with the library's fields and few features."""
  given = {**segmentation.FIELDS[library][name], **fields}
  own = NARROW[name]
  if "backbone" in own:
    theirs = segmentation.FIELDS[library][name].get("backbone", {})
    trunk = fields.get("backbone", {})
    small = {} if "name" in trunk else own["backbone"]
    own = {**own, "backbone": {**theirs, **small, **trunk}}
  return models.create(name, num_classes=3, **{**given, **own})


@functools.cache
def ours_and_theirs(library, name):
  """Returns a network, random variables by path, and their state dict."""
  network = narrow(library, name)
  image = jnp.zeros((1, 64, 64, 3))
  shapes = paths.flatten(
    jax.eval_shape(lambda: network.init(jax.random.key(0), image, train=False))
  )
  rng = np.random.default_rng(0)
  ours = {
    path: rng.standard_normal(leaf.shape).astype(np.float32)
    for path, leaf in shapes.items()
  }
  table = segmentation.name_table(network, library)
  theirs = {"backbone.bn1.num_batches_tracked": np.asarray(3)}
  for path, value in ours.items():
    module, _, leaf = path.partition("/")[2].rpartition("/")
    if leaf == "kernel":
      value = as_torch(library, module, value)
    key = f"{table.find(module)}.{TORCH_NAMES[leaf]}"
    assert key not in theirs
    theirs[key] = value
  return network, ours, theirs


def differences(network, library):
  """Returns the texts of the fields in which a network is not the library's."""
  original = segmentation.describe_original(network, library)
  return [str(each) for each in network_fields.differences(network, original)]


def as_torch(library, module, kernel):
  """Converts a kernel to PyTorch's axes and to the library's channel order."""
  kernel = kernel.transpose(3, 2, 0, 1)
  if module.startswith("upsample"):
    return kernel.transpose(1, 0, 2, 3)  # ConvTranspose2d: [in, out, h, w].
  if (library, module) == ("vainf", "decoder1/conv"):
    # VainF concatenates the two low-level features first.
    return np.concatenate([kernel[:, -2:], kernel[:, :-2]], axis=1)
  return kernel


@pytest.mark.parametrize(("library", "name"), CASES)
def test_names_are_those_of_the_library(library, name, capsys):
  network, ours, theirs = ours_and_theirs(library, name)
  assert EXAMPLES[library, name] <= theirs.keys()
  for given in (library, None):
    loaded = paths.flatten(weights.from_torch(network, theirs, given))
    assert loaded.keys() == ours.keys()
    for path, value in ours.items():
      np.testing.assert_array_equal(loaded[path], value, err_msg=path)
  assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize(("library", "name"), CASES)
def test_missing_and_unexpected_names_are_refused(library, name):
  network, _, theirs = ours_and_theirs(library, name)
  first = next(key for key in theirs if key.endswith("weight"))
  changed = {k: v for k, v in theirs.items() if k != first}
  with pytest.raises(UserError, match="1 missing, 0 unexpected, 0 mis-shaped"):
    weights.from_torch(network, changed, library)
  changed = {**theirs, "ema.decay": np.zeros(1)}
  with pytest.raises(UserError, match="0 missing, 1 unexpected, 0 mis-shaped"):
    weights.from_torch(network, changed, library)


def test_differences_from_the_library_are_printed(capsys):
  """The weights fit, but VainF resizes without align_corners."""
  network = narrow("vainf", "deeplab_v3plus", align_corners=True)
  _, _, theirs = ours_and_theirs("vainf", "deeplab_v3plus")
  weights.from_torch(network, theirs, "vainf")
  out = capsys.readouterr().out
  assert "note: vainf's network has align_corners=False (True here)" in out


@pytest.mark.parametrize(("library", "name"), CASES)
def test_a_librarys_own_network_has_no_differences(library, name):
  """Fields that change no output or follow from the file are not compared."""
  given = segmentation.FIELDS[library][name]
  trunks = {
    "unet": [{}],
    "unet_backbone": ["resnet18", "resnext50_32x4d", "vgg11", "vgg13_bn"],
  }
  for trunk in trunks.get(name, ["resnet18", "resnet101"]):
    backbone = {**given.get("backbone", {}), "name": trunk}
    fields = {**given, "dtype": "bfloat16"}
    fields |= {} if name == "unet" else {"backbone": backbone}
    network = models.create(name, num_classes=7, **fields)
    assert differences(network, library) == []
    fields["norm"] = {"name": "batch", "momentum": 0.5, "frozen": True}
    network = models.create(name, num_classes=7, **fields)
    assert differences(network, library) == []


# Library, network, fields, and the differences that are reported.
OTHERS = {
  "smp unet order": (
    "smp", "unet_backbone", {"skip_first": True, "upsample": "bilinear"},
    ["upsample='nearest' ('bilinear' here)", "skip_first=False (True here)"],
  ),
  "smp unet stride": (
    "smp", "unet_backbone", {"backbone": {"output_stride": 16}},
    ["backbone.output_stride=32 (16 here)"],
  ),
  "smp unet vgg": (
    "smp", "unet_backbone",
    {"backbone": {"name": "vgg11_bn", "ceil_mode": True, "pool_window": 3}},
    [
      "backbone.pool_window=2 (3 here)",
      "backbone.ceil_mode=False (True here)",
    ],
  ),
  "smp v3+ rates": (
    "smp", "deeplab_v3plus", {"rates": (6, 12, 18)},
    ["rates=(12, 24, 36) ((6, 12, 18) here)"],
  ),
  "semseg windows": (
    "semseg", "pspnet", {"pool_crop": 473}, ["pool_crop=0 (473 here)"],
  ),
  "semseg bins": (
    "semseg", "pspnet", {"bins": (1, 2, 4, 8)},
    ["bins=(1, 2, 3, 6) ((1, 2, 4, 8) here)"],
  ),
  "semseg dilation": (
    "semseg", "pspnet",
    {
      "backbone": {
        "contract_dilation": True, "ceil_mode": True, "stride_in_1x1": True,
      },
    },
    [
      "backbone.stride_in_1x1=False (True here)",
      "backbone.ceil_mode=False (True here)",
      "backbone.contract_dilation=False (True here)",
    ],
  ),
  "milesial": (
    "milesial", "unet", {"skip_first": False, "act_upsampled": True},
    ["act_upsampled=False (True here)", "skip_first=True (False here)"],
  ),
  "milesial padding": (
    "milesial", "unet", {"padding": "valid", "mirrored": False},
    ["padding='same' ('valid' here)"],
  ),
  "torchvision v3": (
    "torchvision", "deeplab_v3",
    {
      "align_corners": True, "rates": (1, 2, 3),
      "backbone": {"multi_grid": (1, 2, 4)},
    },
    [
      "rates=(6, 12, 18) ((1, 2, 3) here)",
      "align_corners=False (True here)",
      "backbone.multi_grid=() ((1, 2, 4) here)",
    ],
  ),
  "torchvision fcn": (
    "torchvision", "fcn_resnet",
    {"backbone": {"act": nn.silu}, "norm": {"name": "batch", "epsilon": 1e-3}},
    [
      "norm.epsilon=1e-05 (0.001 here)",
      "backbone.act='relu' ('silu' here)",
      "backbone.norm.epsilon=1e-05 (0.001 here)",
    ],
  ),
  "torchvision stride": (
    "torchvision", "deeplab_v3", {"backbone": {"output_stride": 16}},
    ["backbone.output_stride=8 (16 here)"],
  ),
  "vainf corners": (
    "vainf", "deeplab_v3plus", {"align_corners": True},
    ["align_corners=False (True here)"],
  ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_each_field_of_another_network_is_named(case):
  library, name, fields, expected = OTHERS[case]
  assert differences(narrow(library, name, **fields), library) == expected


@pytest.mark.parametrize(
  ("library", "name", "fields"),
  [
    # The default; no auxiliary head.
    ("torchvision", "deeplab_v3", {"align_corners": False}),
    ("torchvision", "deeplab_v3", {"auxiliary": False}),
    # milesial has both; bilinear upsampling has no up-convolution to activate.
    ("milesial", "unet", {"upsample": "bilinear", "act_upsampled": True}),
    # Without valid padding nothing is mirrored; nothing is dilated.
    ("milesial", "unet", {"mirrored": False}),
    ("smp", "unet_backbone", {"backbone": {"contract_dilation": False}}),
  ],
)
def test_fields_that_change_no_output_are_no_differences(library, name, fields):
  assert differences(narrow(library, name, **fields), library) == []


def test_names_of_older_smp_files():
  """Before 0.4 the decoder of DeepLabV3 was a sequence."""
  network, ours, theirs = ours_and_theirs("smp", "deeplab_v3")
  places = {"decoder.aspp.": "decoder.0.", "decoder.conv.": "decoder.1."}
  places["decoder.bn."] = "decoder.2."
  older = {}
  for key, value in theirs.items():
    for now, then in places.items():
      key = key.replace(now, then)
    older[key] = value
  loaded = paths.flatten(weights.from_torch(network, older, "smp"))
  np.testing.assert_array_equal(
    loaded["params/conv/conv/kernel"], ours["params/conv/conv/kernel"]
  )


@pytest.mark.parametrize(
  ("name", "fields", "library", "message"),
  [
    ("pspnet", {}, "smp", "other layers than the paper's"),
    ("pspnet", {}, "torchvision", "has no PSPNet; expected semseg"),
    ("deeplab_v3", {}, "torchvison", "did you mean 'torchvision'"),
    (
      "unet_backbone",
      {"backbone": "efficientnet_b0"},
      "smp",
      "expected a plain ResNet or a VGG",
    ),
    (
      "deeplab_v3plus",
      {"backbone": "mobilenet_v2"},
      "vainf",
      "expected a plain ResNet",
    ),
    (
      "deeplab_v3",
      {"backbone": "se_resnet50"},
      "smp",
      "expected a plain ResNet",
    ),
  ],
)
def test_different_networks_are_refused(name, fields, library, message):
  network = models.create(name, num_classes=3, **fields)
  with pytest.raises(UserError, match=message) as error:
    weights.from_torch(network, {}, library)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("blocks", "bottleneck", "name"),
  [
    ((2, 2, 2, 2), False, "resnet18"),
    ((3, 4, 6, 3), False, "resnet34"),
    ((3, 4, 6, 3), True, "resnet50"),
    ((3, 4, 23, 3), True, "resnet101"),
    ((3, 8, 36, 3), True, "resnet152"),
    ((1, 1, 1, 1), True, ""),
  ],
)
def test_resnets_are_recognised_by_their_blocks(blocks, bottleneck, name):
  convolutions = (1, 2, 3) if bottleneck else (1, 2)
  names = [
    f"encoder.layer{s}.{b}.conv{i}.weight"
    for s, size in enumerate(blocks, start=1)
    for b in range(size)
    for i in convolutions
  ]
  assert segmentation.recognise_resnet(names) == name


@pytest.mark.parametrize("library", [None, "milesial"])
@pytest.mark.parametrize(
  ("bilinear", "features"),
  [(False, (16, 32, 64)), (True, (4, 8, 16, 32)), (True, ())],
)
def test_unets_of_any_width_and_depth_are_recognised(
  library, bilinear, features
):
  """milesial halves the coarsest features if the upsampling is bilinear."""
  widths = list(features or (64, 128, 256, 512, 1024))
  if bilinear:
    widths[-1] //= 2
  blocks = ["inc", *(f"down{i}.maxpool_conv.1" for i in range(1, len(widths)))]
  arrays = {
    f"{block}.double_conv.3.weight": np.zeros((width, 1, 3, 3))
    for block, width in zip(blocks, widths, strict=True)
  }
  arrays["outc.conv.weight"] = np.zeros((6, 1, 1, 1))
  if not bilinear:
    arrays["up1.up.weight"] = np.zeros((1, 1, 2, 2))
  library = library or segmentation.recognise_library("unet", arrays)
  fields = segmentation.recognise_fields("unet", library, arrays)
  assert fields.get("features", ()) == features
  assert fields.get("upsample", "transposed") == (
    "bilinear" if bilinear else "transposed"
  )
  assert fields["num_classes"] == 6


def test_libraries_are_recognised_by_their_names():
  for (library, name), names in EXAMPLES.items():
    assert segmentation.recognise_library(name, names) == library


def test_convert_writes_a_segmentation_network(tmp_path, capsys):
  """Depth and classes come from the file; the result initialises a network."""
  network = models.create(
    "fcn_resnet", num_classes=2, backbone={"name": "resnet18"}
  )
  image = jnp.zeros((1, 64, 64, 3))
  shapes = paths.flatten(
    jax.eval_shape(lambda: network.init(jax.random.key(0), image, train=False))
  )
  table = segmentation.name_table(network, "torchvision")
  theirs = {}
  for path, leaf in shapes.items():
    module, _, name = path.partition("/")[2].rpartition("/")
    shape = leaf.shape
    shape = (shape[3], shape[2], *shape[:2]) if name == "kernel" else shape
    theirs[f"{table.find(module)}.{TORCH_NAMES[name]}"] = np.zeros(
      shape, np.float32
    )
  file, out = str(tmp_path / "theirs.npz"), str(tmp_path / "ours.npz")
  np.savez(file, **theirs)
  cli.main(["convert", "--model=fcn_resnet", file, out])
  said = capsys.readouterr().out
  assert f"{len(shapes)} of {len(shapes)} arrays" in said
  assert "--config=configs/fcn_resnet.py:folder,resnet18" in said
  assert "fcn_resnet of 2 classes" in said
  assert paths.flatten(weights.load(out)).keys() == shapes.keys()
  # Both the converted and the original file initialise a network.
  variables = paths.unflatten(
    {path: np.ones(leaf.shape, np.float32) for path, leaf in shapes.items()}
  )
  for path in (out, file):
    filled = weights.initialise(network, variables, model=path)
    assert not any(v.any() for v in paths.flatten(filled).values())
