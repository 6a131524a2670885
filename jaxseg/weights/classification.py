"""Names of classification networks in torchvision and timm.

Each family of backbones has one function that returns its `NameTable`. Names
are those of torchvision 0.13 to 0.28. torchvision has no squeeze-and-excitation
networks and no Xception; their names are those of timm 1.0.

torchvision's pretrained GoogLeNet was trained on images scaled to [-1, 1]. It
needs `data.mean=(0.5, 0.5, 0.5)` and `data.std=(0.5, 0.5, 0.5)`.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import flax.linen as nn

from jaxseg import backbones
from jaxseg.backbones.alexnet import AlexNet
from jaxseg.backbones.densenet import DenseNet
from jaxseg.backbones.efficientnet import EfficientNet
from jaxseg.backbones.googlenet import GoogLeNet
from jaxseg.backbones.mobilenet_v2 import MobileNetV2
from jaxseg.backbones.resnet import ResNet
from jaxseg.backbones.vgg import VGG
from jaxseg.backbones.xception import Xception
from jaxseg.errors import UserError, unknown_name
from jaxseg.weights import network_fields
from jaxseg.weights.layouts import dense_after_flattening
from jaxseg.weights.name_table import NameTable, conv_norm


def resnet(backbone: ResNet) -> NameTable:
  """Returns the names of ResNet and ResNeXt, timm's SE networks included."""
  del backbone  # The names do not depend on the fields.
  block = r"stage(\d)_block(\d+)"
  return NameTable(
    backbone={
      **conv_norm("stem", "conv1", "bn1"),
      **conv_norm(
        rf"{block}/conv(\d)",
        lambda s, b, i: f"layer{s}.{b - 1}.conv{i}",
        lambda s, b, i: f"layer{s}.{b - 1}.bn{i}",
      ),
      **conv_norm(
        f"{block}/project",
        lambda s, b: f"layer{s}.{b - 1}.downsample.0",
        lambda s, b: f"layer{s}.{b - 1}.downsample.1",
      ),
      f"{block}/se/reduce": lambda s, b: f"layer{s}.{b - 1}.se.fc1",
      f"{block}/se/expand": lambda s, b: f"layer{s}.{b - 1}.se.fc2",
    },
    head={"head/classifier": "fc"},
    head_prefixes=("fc.",),
    input_conv="stem/conv",
  )


def alexnet(backbone: AlexNet) -> NameTable:
  """Returns the names of AlexNet.

  torchvision numbers the convolutions, ReLUs and pools consecutively.
  """
  del backbone
  positions = (0, 3, 6, 8, 10)
  return NameTable(
    backbone={r"conv(\d)": lambda i: f"features.{positions[i - 1]}"},
    head={
      "head/fc6": "classifier.1",
      "head/fc7": "classifier.4",
      "head/classifier": "classifier.6",
    },
    head_prefixes=("classifier.",),
    input_conv="conv1",
    kernels={
      "head/fc6": functools.partial(dense_after_flattening, size=(6, 6)),
    },
  )


def vgg(backbone: VGG) -> NameTable:
  """Returns the names of VGG.

  torchvision numbers the convolutions, norms, ReLUs and pools consecutively.
  """
  layers = 3 if backbone.batch_norm else 2

  def position(s, b):
    before = sum(backbone.stage_sizes[: s - 1]) + b - 1
    return before * layers + s - 1

  return NameTable(
    backbone=conv_norm(
      r"conv(\d)_(\d)",
      lambda s, b: f"features.{position(s, b)}",
      lambda s, b: f"features.{position(s, b) + 1}",
    ),
    head={
      "head/fc6": "classifier.0",
      "head/fc7": "classifier.3",
      "head/classifier": "classifier.6",
    },
    head_prefixes=("classifier.",),
    input_conv="conv1_1/conv",
    kernels={
      "head/fc6": functools.partial(dense_after_flattening, size=(7, 7)),
    },
  )


def googlenet(backbone: GoogLeNet) -> NameTable:
  """Returns the names of GoogLeNet with both auxiliary classifiers."""
  del backbone
  block, aux = r"inception(\d\w)", {"4a": "aux1", "4d": "aux2"}
  rows = conv_norm(
    r"conv(\d)", lambda i: f"conv{i}.conv", lambda i: f"conv{i}.bn"
  )
  for ours, theirs in {
    "branch1": "branch1",
    "branch2_reduce": "branch2.0",
    "branch2": "branch2.1",
    "branch3_reduce": "branch3.0",
    "branch3": "branch3.1",
    "branch4": "branch4.1",
  }.items():
    rows |= conv_norm(
      f"{block}/{ours}",
      lambda x, theirs=theirs: f"inception{x}.{theirs}.conv",
      lambda x, theirs=theirs: f"inception{x}.{theirs}.bn",
    )
  return NameTable(
    backbone=rows,
    head={
      **conv_norm(
        r"aux_(4\w)/conv",
        lambda x: f"{aux[x]}.conv.conv",
        lambda x: f"{aux[x]}.conv.bn",
      ),
      r"aux_(4\w)/fc": lambda x: f"{aux[x]}.fc1",
      r"aux_(4\w)/classifier": lambda x: f"{aux[x]}.fc2",
      "head/classifier": "fc",
    },
    head_prefixes=("aux1.", "aux2.", "fc."),
    input_conv="conv1/conv",
    kernels={
      r"aux_4\w/fc": functools.partial(dense_after_flattening, size=(4, 4)),
    },
  )


def densenet(backbone: DenseNet) -> NameTable:
  """Returns the names of DenseNet.

  Files older than torchvision 0.3 contain `norm.1` instead of `norm1`.
  """
  del backbone
  return NameTable(
    backbone={
      **conv_norm("stem", "features.conv0", "features.norm0"),
      r"block(\d)_layer(\d+)/((?:conv|norm)\d)": (
        lambda s, b, name: f"features.denseblock{s}.denselayer{b}.{name}"
      ),
      r"transition(\d)_(conv|norm)": (
        lambda s, name: f"features.transition{s}.{name}"
      ),
      "norm": "features.norm5",
    },
    head={"head/classifier": "classifier"},
    head_prefixes=("classifier.",),
    input_conv="stem/conv",
    renamed=((r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2."),),
  )


def mobilenet_v2(backbone: MobileNetV2) -> NameTable:
  """Returns the names of MobileNetV2.

  torchvision numbers the blocks consecutively. A block without expansion
  begins with its depthwise convolution.
  """
  sizes = [size for _, _, size, _ in backbone.stages]
  last = sum(sizes) + 1

  def layer(stage, block, name):
    """Returns the names of a convolution and of its norm."""
    expansion = backbone.stages[stage - 1][0]
    order = ["depthwise", "project"]
    if expansion != 1:
      order.insert(0, "expand")
    sequence = f"features.{sum(sizes[: stage - 1]) + block}.conv"
    i = order.index(name)
    if name == "project":
      return f"{sequence}.{i}", f"{sequence}.{i + 1}"
    return f"{sequence}.{i}.0", f"{sequence}.{i}.1"

  return NameTable(
    backbone={
      **conv_norm("stem", "features.0.0", "features.0.1"),
      **conv_norm(
        r"stage(\d)_block(\d+)/(expand|depthwise|project)",
        lambda s, b, name: layer(s, b, name)[0],
        lambda s, b, name: layer(s, b, name)[1],
      ),
    },
    head={
      **conv_norm("head/conv", f"features.{last}.0", f"features.{last}.1"),
      "head/classifier": "classifier.1",
    },
    head_prefixes=(f"features.{last}.", "classifier."),
    input_conv="stem/conv",
  )


def efficientnet(backbone: EfficientNet) -> NameTable:
  """Returns the names of EfficientNet.

  A block without expansion has one layer less.
  """
  block, last = r"stage(\d)_block(\d+)", len(backbone.stages) + 1

  def layer(stage, block, name):
    """Returns the name of a convolution with norm, or of the SE module."""
    expansion = backbone.stages[stage - 1][0]
    order = ["depthwise", "se", "project"]
    if expansion != 1:
      order.insert(0, "expand")
    return f"features.{stage}.{block - 1}.block.{order.index(name)}"

  return NameTable(
    backbone={
      **conv_norm("stem", "features.0.0", "features.0.1"),
      **conv_norm(
        rf"{block}/(expand|depthwise|project)",
        lambda s, b, name: f"{layer(s, b, name)}.0",
        lambda s, b, name: f"{layer(s, b, name)}.1",
      ),
      f"{block}/se/reduce": lambda s, b: f"{layer(s, b, 'se')}.fc1",
      f"{block}/se/expand": lambda s, b: f"{layer(s, b, 'se')}.fc2",
    },
    head={
      **conv_norm("head/conv", f"features.{last}.0", f"features.{last}.1"),
      "head/classifier": "classifier.1",
    },
    head_prefixes=(f"features.{last}.", "classifier."),
    input_conv="stem/conv",
  )


def xception(backbone: Xception) -> NameTable:
  """Returns the names of the aligned Xception.

  timm numbers the blocks consecutively.
  """
  names = [f"entry{i}" for i in (1, 2, 3)]
  names += [f"middle{i + 1}" for i in range(backbone.middle_blocks)]
  names += ["exit1", "exit2"]
  block = r"((?:entry|middle|exit)\d+)"
  short = {"depthwise": "dw", "pointwise": "pw"}

  def separable(kind):
    return lambda name, i, part: (
      f"blocks.{names.index(name)}.stack.conv{i}.{kind}_{short[part]}"
    )

  return NameTable(
    backbone={
      **conv_norm(
        r"stem(\d)",
        lambda i: f"stem.{i - 1}.conv",
        lambda i: f"stem.{i - 1}.bn",
      ),
      **conv_norm(
        f"{block}/shortcut",
        lambda name: f"blocks.{names.index(name)}.shortcut.conv",
        lambda name: f"blocks.{names.index(name)}.shortcut.bn",
      ),
      **conv_norm(
        rf"{block}/separable(\d)/(depthwise|pointwise)",
        separable("conv"),
        separable("bn"),
      ),
    },
    head={"head/classifier": "head.fc"},
    head_prefixes=("head.fc.",),
    input_conv="stem1/conv",
  )


LIBRARIES = {
  "torchvision": {
    AlexNet: alexnet,
    DenseNet: densenet,
    EfficientNet: efficientnet,
    GoogLeNet: googlenet,
    MobileNetV2: mobilenet_v2,
    ResNet: resnet,
    VGG: vgg,
  },
  "timm": {ResNet: resnet, Xception: xception},
}
# Classes of the backbones that some library has.
_KINDS = {kind for tables in LIBRARIES.values() for kind in tables}


# Fields that a paper changes on its backbone, and that the libraries' networks
# leave at the default of the class.
_PAPERS_CHANGE = (
  "output_stride", "multi_grid", "stem", "stride_in_1x1", "ceil_mode",
  "padding", "pad_inner", "pool_window", "dense_pools", "dilate_pools",
)  # fmt: skip


def choose_library(backbone: nn.Module, library: str | None = None) -> str:
  """Returns the library that weights of a classification network come from.

  Args:
    backbone: Backbone of the classification network.
    library: Key of `LIBRARIES`. None selects the first library that has this
      kind of backbone.

  Raises:
    UserError: The library is unknown or does not have this network.
  """
  if library not in (None, *LIBRARIES):
    raise unknown_name("library", library, LIBRARIES)
  kind = type(backbone)
  candidates = [name for name, tables in LIBRARIES.items() if kind in tables]
  if not candidates:
    raise UserError(
      f"no library has weights of {kind.__name__}; expected one of "
      + ", ".join(sorted(known.__name__ for known in _KINDS))
    )
  if library is None:
    library = candidates[0]
  if library not in candidates:
    raise UserError(
      f"library={library!r} has no {kind.__name__}; expected "
      + " or ".join(candidates)
    )
  return library


def name_table(backbone: nn.Module, library: str | None = None) -> NameTable:
  """Returns the names that a library gives to the modules of a network.

  Args:
    backbone: Backbone of the classification network.
    library: As in `choose_library`.

  Raises:
    UserError: The library is unknown or does not have this network.
  """
  return LIBRARIES[choose_library(backbone, library)][type(backbone)](backbone)


def recognise_fields(
  name: str, library: str | None, arrays: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the fields of the classifier in a file.

  "num_classes" is missing if the file has no head.

  Args:
    name: Key of `BACKBONES`.
    library: As in `choose_library`.
    arrays: Names and tensors or NumPy arrays of the file.
  """
  fields: dict[str, Any] = {"backbone": {"name": name}}
  table = name_table(backbones.create(name), library)
  kernel = f"{table.find('head/classifier')}.weight"
  if kernel in arrays:
    fields["num_classes"] = int(arrays[kernel].shape[0])
  return fields


def describe_original(backbone: nn.Module) -> network_fields.Description:
  """Describes the libraries' backbone that has the same weights."""
  defaults = {
    field.name: field.default
    for field in dataclasses.fields(backbone)
    if field.name in _PAPERS_CHANGE
  }
  return network_fields.describe(backbone.clone(**defaults))


def is_backbone(module: nn.Module) -> bool:
  """Returns whether `module` is a backbone that some library has."""
  return type(module) in _KINDS
