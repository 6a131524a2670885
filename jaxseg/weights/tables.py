"""Names: which of PyTorch's modules is which of ours, one table a family.

Each row is a regular expression over our module path, relative to the
backbone, and their module's name, or a function of the expression's numbers
that gives it. Names are torchvision's (0.13 to 0.28); squeeze-and-excitation
networks and Xception, which torchvision does not have, are timm's (1.0).

torchvision's pretrained GoogLeNet was trained on images scaled to [-1, 1]:
give it `data.mean=(0.5, 0.5, 0.5)` and `data.std=(0.5, 0.5, 0.5)`.
"""

from collections.abc import Callable, Mapping
import dataclasses
import re

import flax.linen as nn
import numpy as np

from jaxseg.backbones.alexnet import AlexNet
from jaxseg.backbones.densenet import DenseNet
from jaxseg.backbones.efficientnet import EfficientNet
from jaxseg.backbones.googlenet import GoogLeNet
from jaxseg.backbones.mobilenet_v2 import MobileNetV2
from jaxseg.backbones.resnet import ResNet
from jaxseg.backbones.vgg import VGG
from jaxseg.backbones.xception import Xception
from jaxseg.errors import UserError, unknown_name

Rows = Mapping[str, str | Callable[..., str]]


@dataclasses.dataclass(frozen=True)
class Table:
  """The names of one network.

  Attributes:
    backbone: rows for the backbone's modules.
    head: rows for the classifier's, relative to the whole network.
    theirs: how their names of the head begin; a backbone leaves these.
    first: our path of the first convolution, which reads the image.
    flattened: height and width of the map that a dense layer reads, by its
      path, where it is not 1x1.
    renamed: (expression, replacement) pairs for names of older files.
    prefix: what their names of the backbone's modules begin with.
    prepared: what is done to their kernels, by an expression over our paths,
      before the axes are ordered.
  """

  backbone: Rows
  head: Rows
  theirs: tuple[str, ...]
  first: str
  flattened: Mapping[str, tuple[int, int]] = dataclasses.field(
    default_factory=dict
  )
  renamed: tuple[tuple[str, str], ...] = ()
  prefix: str = ""
  prepared: Mapping[str, Callable[[np.ndarray], np.ndarray]] = (
    dataclasses.field(default_factory=dict)
  )

  def find(self, path: str) -> str | None:
    """Their name of our module `path` (from the network's root), or None."""
    inside = path.removeprefix("backbone/")
    if inside == path:
      return _look_up(self.head, path)
    name = _look_up(self.backbone, inside)
    return None if name is None else self.prefix + name

  def prepare(self, path: str, kernel: np.ndarray) -> np.ndarray:
    """Their kernel of our module `path` as `layouts` expects it."""
    for pattern, function in self.prepared.items():
      if re.fullmatch(pattern, path):
        kernel = function(kernel)
    return kernel

  @property
  def first_path(self) -> str:
    """`first`, from the network's root."""
    return f"backbone/{self.first}" if self.backbone else self.first


def _look_up(rows: Rows, path: str) -> str | None:
  for pattern, name in rows.items():
    match = re.fullmatch(pattern, path)
    if match:
      numbers = (int(g) if g.isdecimal() else g for g in match.groups())
      return name if isinstance(name, str) else name(*numbers)
  return None


def table_of(backbone: nn.Module, source: str | None = None) -> Table:
  """The names that `source`, or the first that has it, gives to `backbone`.

  Raises:
    UserError: an unknown source, or one that does not have this network.
  """
  having = [name for name in SOURCES if type(backbone) in SOURCES[name]]
  if source not in (None, *SOURCES):
    raise unknown_name("source of weights", source, SOURCES)
  if source not in (None, *having) or not having:
    raise UserError(
      f"source={source!r} has no {type(backbone).__name__}; "
      + (f"expected {' or '.join(having)}" if having else "none has it")
    )
  return SOURCES[source or having[0]][type(backbone)](backbone)


def is_backbone(module: nn.Module) -> bool:
  """Whether `module` is a backbone of some source, and no network around it."""
  return any(type(module) in known for known in SOURCES.values())


def first_path(backbone: nn.Module | None) -> str:
  """Our path of the convolution that reads the image; "" if unknown."""
  return table_of(backbone).first if is_backbone(backbone) else ""


def conv_norm(ours: str, conv, norm) -> Rows:
  """The two rows of a `ConvNormAct`."""
  return {f"{ours}/conv": conv, f"{ours}/norm": norm}


def resnet(backbone: ResNet) -> Table:
  """ResNet, ResNeXt, and timm's SE variants of both."""
  del backbone  # All are named alike.
  block = r"stage(\d)_block(\d+)"
  return Table(
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
    theirs=("fc.",),
    first="stem/conv",
  )


def alexnet(backbone: AlexNet) -> Table:
  """AlexNet; positions in torchvision's sequence of layers and ReLUs."""
  del backbone
  positions = (0, 3, 6, 8, 10)
  return Table(
    backbone={r"conv(\d)": lambda i: f"features.{positions[i - 1]}"},
    head={
      "head/fc6": "classifier.1",
      "head/fc7": "classifier.4",
      "head/classifier": "classifier.6",
    },
    theirs=("classifier.",),
    first="conv1",
    flattened={"head/fc6": (6, 6)},
  )


def vgg(backbone: VGG) -> Table:
  """VGG; positions count convolutions, norms, ReLUs and pools."""
  layers = 3 if backbone.batch_norm else 2

  def position(s, b):
    before = sum(backbone.stage_sizes[: s - 1]) + b - 1
    return before * layers + s - 1

  return Table(
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
    theirs=("classifier.",),
    first="conv1_1/conv",
    flattened={"head/fc6": (7, 7)},
  )


def googlenet(backbone: GoogLeNet) -> Table:
  """GoogLeNet with both auxiliary classifiers."""
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
  return Table(
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
    theirs=("aux1.", "aux2.", "fc."),
    first="conv1/conv",
    flattened={"aux_4a/fc": (4, 4), "aux_4d/fc": (4, 4)},
  )


def densenet(backbone: DenseNet) -> Table:
  """DenseNet; files before torchvision 0.3 say `norm.1` for `norm1`."""
  del backbone
  return Table(
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
    theirs=("classifier.",),
    first="stem/conv",
    renamed=((r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2."),),
  )


def mobilenet_v2(backbone: MobileNetV2) -> Table:
  """MobileNetV2; blocks are counted through, and one without expansion has
  its depthwise convolution first."""
  sizes = [size for _, _, size, _ in backbone.stages]
  last = sum(sizes) + 1

  def layer(s, b, name):
    expands = backbone.stages[s - 1][0] != 1
    block = f"features.{sum(sizes[: s - 1]) + b}.conv"
    if name == "project":
      at = 1 + expands
      return f"{block}.{at}", f"{block}.{at + 1}"
    at = 1 if expands and name == "depthwise" else 0
    return f"{block}.{at}.0", f"{block}.{at}.1"

  return Table(
    backbone={
      **conv_norm("stem", "features.0.0", "features.0.1"),
      **conv_norm(
        r"stage(\d)_block(\d+)/(\w+)",
        lambda *found: layer(*found)[0],
        lambda *found: layer(*found)[1],
      ),
    },
    head={
      **conv_norm("head/conv", f"features.{last}.0", f"features.{last}.1"),
      "head/classifier": "classifier.1",
    },
    theirs=(f"features.{last}.", "classifier."),
    first="stem/conv",
  )


def efficientnet(backbone: EfficientNet) -> Table:
  """EfficientNet; a block without expansion has one layer less."""
  block, last = r"stage(\d)_block(\d+)", len(backbone.stages) + 1
  order = ("expand", "depthwise", "se", "project")

  def layer(s, b, name, *rest):
    at = order.index(name) - (backbone.stages[s - 1][0] == 1)
    return ".".join((f"features.{s}.{b - 1}.block.{at}", *rest))

  return Table(
    backbone={
      **conv_norm("stem", "features.0.0", "features.0.1"),
      **conv_norm(
        rf"{block}/(expand|depthwise|project)",
        lambda *found: layer(*found, "0"),
        lambda *found: layer(*found, "1"),
      ),
      f"{block}/(se)/reduce": lambda *found: layer(*found, "fc1"),
      f"{block}/(se)/expand": lambda *found: layer(*found, "fc2"),
    },
    head={
      **conv_norm("head/conv", f"features.{last}.0", f"features.{last}.1"),
      "head/classifier": "classifier.1",
    },
    theirs=(f"features.{last}.", "classifier."),
    first="stem/conv",
  )


def xception(backbone: Xception) -> Table:
  """Aligned Xception; timm counts the blocks through."""
  names = [f"entry{i}" for i in (1, 2, 3)]
  names += [f"middle{i + 1}" for i in range(backbone.middle_blocks)]
  names += ["exit1", "exit2"]
  block = r"((?:entry|middle|exit)\d+)"
  short = {"depthwise": "dw", "pointwise": "pw"}

  def separable(kind):
    return lambda name, i, part: (
      f"blocks.{names.index(name)}.stack.conv{i}.{kind}_{short[part]}"
    )

  return Table(
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
    theirs=("head.fc.",),
    first="stem1/conv",
  )


SOURCES = {
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
