"""Names of whole segmentation networks in other people's PyTorch code.

- `torchvision` (0.13 to 0.28): fcn_resnet50/101, deeplabv3_resnet50/101;
- `semseg` (hszhao/semseg): PSPNet;
- `vainf` (VainF/DeepLabV3Plus-Pytorch): DeepLabV3 and V3+ on ResNets;
- `milesial` (milesial/Pytorch-UNet): U-Net, both ways of upsampling;
- `smp` (segmentation_models_pytorch, 0.3 to 0.6): Unet on ResNets and VGGs,
  DeepLabV3 and DeepLabV3Plus on ResNets.

`FIELDS` says by which of our fields our network is theirs. What no field can
bring about is refused: smp's PSPNet, and its encoders that hand over other
maps than ours.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import re
from typing import Any

import flax.linen as nn
import numpy as np

from jaxseg.backbones.resnet import RESNETS, ResNet
from jaxseg.backbones.vgg import VGG
from jaxseg.errors import UserError, unknown_name
from jaxseg.models import MODELS
from jaxseg.models.deeplab_v3 import DeepLabV3
from jaxseg.models.deeplab_v3plus import DeepLabV3Plus
from jaxseg.models.fcn_resnet import FCNResNet
from jaxseg.models.pspnet import PSPNet
from jaxseg.models.unet import SAME, UNet
from jaxseg.models.unet_backbone import UNetBackbone
from jaxseg.weights import tables
from jaxseg.weights.tables import Rows, Table, conv_norm

# Each backbone's fields are those that the network's own default lacks.
_VAINF_RESNET = {"output_stride": 16, "stem": "conv7"}
_SMP_RESNET = {"stem": "conv7", "contract_dilation": False}
FIELDS: dict[str, dict[str, dict[str, Any]]] = {
  "torchvision": {
    "fcn_resnet": {},
    "deeplab_v3": {"variant": "torchvision"},
  },
  "semseg": {"pspnet": {}},
  "vainf": {
    "deeplab_v3": {
      "variant": "torchvision",
      "auxiliary": False,
      "dropout_rate": 0.1,
      "backbone": _VAINF_RESNET,
    },
    "deeplab_v3plus": {
      "separable_aspp": False,
      "separable_decoder": False,
      "decoder_convs": 1,
      "align_corners": False,
      "backbone": _VAINF_RESNET,
    },
  },
  "milesial": {"unet": {**SAME, "norm": "batch"}},
  "smp": {
    "unet_backbone": {},
    "deeplab_v3": {
      "variant": "torchvision",
      "auxiliary": False,
      "align_corners": True,
      "backbone": {**_SMP_RESNET, "output_stride": 8},
    },
    "deeplab_v3plus": {
      "rates": (12, 24, 36),
      "norm_between": False,
      "aspp_conv": True,
      "decoder_convs": 1,
      "dropout_rate": 0.5,
      "backbone": {**_SMP_RESNET, "output_stride": 16},
    },
  },
}
# Fields that change no answer of a trained network.
_TRAINING_ONLY = ("dropout_rate", "dropout_levels", "norm", "backbone")


def in_backbone(network: nn.Module, prefix: str, head: Rows, **fields) -> Table:
  """The backbone's own names behind `prefix`, and `head` for the rest."""
  backbone = network.backbone
  table = tables.SOURCES["torchvision"][type(backbone)](backbone)
  fields = {"renamed": (), "flattened": {}, **fields}
  return dataclasses.replace(
    table, prefix=prefix, head=head, theirs=(), **fields
  )


def aspp(theirs: str, convolution: str) -> Rows:
  """The rows of an `AtrousSpatialPyramid`.

  Args:
    theirs: their module.
    convolution: of the 3x3 branches, "plain" or "separable".
  """
  at = f"{theirs}.convs"
  rows = {
    **conv_norm("aspp/conv1x1", f"{at}.0.0", f"{at}.0.1"),
    **conv_norm("aspp/image", f"{at}.4.1", f"{at}.4.2"),
    **conv_norm("aspp/project", f"{theirs}.project.0", f"{theirs}.project.1"),
  }
  if convolution == "separable":
    return rows | {
      r"aspp/atrous(\d)/depthwise/conv": lambda i: f"{at}.{i}.0.0",
      r"aspp/atrous(\d)/pointwise/conv": lambda i: f"{at}.{i}.0.1",
      r"aspp/atrous(\d)/pointwise/norm": lambda i: f"{at}.{i}.1",
    }
  return rows | conv_norm(
    r"aspp/atrous(\d)", lambda i: f"{at}.{i}.0", lambda i: f"{at}.{i}.1"
  )


def fcn_head(ours: str, theirs: str) -> Rows:
  """Convolution, norm, ReLU, dropout, classifier."""
  return {
    **conv_norm(f"{ours}/conv", f"{theirs}.0", f"{theirs}.1"),
    f"{ours}/classifier": f"{theirs}.4",
  }


def torchvision_fcn(network: FCNResNet) -> Table:
  """FCN's two heads."""
  head = fcn_head("head", "classifier")
  head |= fcn_head("aux_head", "aux_classifier")
  return in_backbone(network, "backbone.", head)


def torchvision_deeplab_v3(network: DeepLabV3) -> Table:
  """The pyramid is the classifier's first layer."""
  head = {
    **aspp("classifier.0", "plain"),
    **conv_norm("conv", "classifier.1", "classifier.2"),
    "classifier": "classifier.4",
    **fcn_head("aux_head", "aux_classifier"),
  }
  return in_backbone(network, "backbone.", head)


def vainf_deeplab_v3(network: DeepLabV3) -> Table:
  """torchvision's, one level deeper."""
  head = {
    **aspp("classifier.classifier.0", "plain"),
    **conv_norm("conv", "classifier.classifier.1", "classifier.classifier.2"),
    "classifier": "classifier.classifier.4",
  }
  return in_backbone(network, "backbone.", head)


def vainf_deeplab_v3plus(network: DeepLabV3Plus) -> Table:
  """The low-level features come first in the concatenation: ours are last."""
  low = network.low_level_features
  head = {
    **aspp("classifier.aspp", "plain"),
    **conv_norm("low_level", "classifier.project.0", "classifier.project.1"),
    **conv_norm(
      "decoder1", "classifier.classifier.0", "classifier.classifier.1"
    ),
    "classifier": "classifier.classifier.3",
  }
  swap = {"decoder1/conv": lambda weight: np.roll(weight, -low, axis=1)}
  return in_backbone(network, "backbone.", head, prepared=swap)


def smp_deeplab_v3(network: DeepLabV3) -> Table:
  """Names of 0.4 on; before, the decoder was a sequence."""
  head = {
    **aspp("decoder.aspp", "plain"),
    **conv_norm("conv", "decoder.conv", "decoder.bn"),
    "classifier": "segmentation_head.0",
  }
  older = (
    (r"^decoder\.0\.", "decoder.aspp."),
    (r"^decoder\.1\.", "decoder.conv."),
    (r"^decoder\.2\.", "decoder.bn."),
  )
  return in_backbone(network, "encoder.", head, renamed=older)


def smp_deeplab_v3plus(network: DeepLabV3Plus) -> Table:
  """Separable convolutions with one norm."""

  def separable(ours, theirs, norm):
    return {
      f"{ours}/depthwise/conv": f"{theirs}.0",
      f"{ours}/pointwise/conv": f"{theirs}.1",
      f"{ours}/pointwise/norm": norm,
    }

  head = {
    **aspp("decoder.aspp.0", "separable"),
    **separable("aspp_conv", "decoder.aspp.1", "decoder.aspp.2"),
    **conv_norm("low_level", "decoder.block1.0", "decoder.block1.1"),
    **separable("decoder1", "decoder.block2.0", "decoder.block2.1"),
    "classifier": "segmentation_head.0",
  }
  return in_backbone(network, "encoder.", head)


def smp_unet(network: UNetBackbone) -> Table:
  """Five blocks, the coarsest first; a centre for VGG."""
  head = {
    **conv_norm(
      r"up(\d)_conv(\d)",
      lambda level, i: f"decoder.blocks.{4 - level}.conv{i}.0",
      lambda level, i: f"decoder.blocks.{4 - level}.conv{i}.1",
    ),
    **conv_norm(
      r"centre_conv(\d)",
      lambda i: f"decoder.center.{i - 1}.0",
      lambda i: f"decoder.center.{i - 1}.1",
    ),
    "classifier": "segmentation_head.0",
  }
  return in_backbone(network, "encoder.", head)


def semseg_pspnet(network: PSPNet) -> Table:
  """The deep stem is a sequence; so is each level of the pyramid."""
  bins = network.bins
  head = {
    **conv_norm(
      r"pyramid/bin(\d+)",
      lambda b: f"ppm.features.{bins.index(b)}.1",
      lambda b: f"ppm.features.{bins.index(b)}.2",
    ),
    **fcn_head("head", "cls"),
    **fcn_head("aux_head", "aux"),
  }
  stem = conv_norm(
    r"stem(\d)",
    lambda i: f"layer0.{3 * i - 3}",
    lambda i: f"layer0.{3 * i - 2}",
  )
  table = in_backbone(network, "", head)
  return dataclasses.replace(
    table, backbone={**table.backbone, **stem}, first="stem1/conv"
  )


def milesial_unet(network: UNet) -> Table:
  """`inc`, `down1` ... and back through `up1` ...; a stamp is [in, out]."""
  depth = len(network.features) - 1
  at = {1: 0, 2: 3}

  def down(level, i, norm):
    block = "inc" if level == 1 else f"down{level - 1}.maxpool_conv.1"
    return f"{block}.double_conv.{at[i] + norm}"

  def up(level, i, norm):
    return f"up{depth + 1 - level}.conv.double_conv.{at[i] + norm}"

  head = {
    **conv_norm(
      r"down(\d)/conv(\d)",
      lambda level, i: down(level, i, 0),
      lambda level, i: down(level, i, 1),
    ),
    **conv_norm(
      r"up(\d)/conv(\d)",
      lambda level, i: up(level, i, 0),
      lambda level, i: up(level, i, 1),
    ),
    r"upsample(\d)": lambda level: f"up{depth + 1 - level}.up",
    "classifier": "outc.conv",
  }
  return Table(
    backbone={},
    head=head,
    theirs=(),
    first="down1/conv1/conv",
    prepared={r"upsample\d": lambda weight: weight.swapaxes(0, 1)},
  )


SOURCES: dict[str, dict[type[nn.Module], Callable[[Any], Table]]] = {
  "torchvision": {
    FCNResNet: torchvision_fcn,
    DeepLabV3: torchvision_deeplab_v3,
  },
  "semseg": {PSPNet: semseg_pspnet},
  "vainf": {
    DeepLabV3: vainf_deeplab_v3,
    DeepLabV3Plus: vainf_deeplab_v3plus,
  },
  "milesial": {UNet: milesial_unet},
  "smp": {
    UNetBackbone: smp_unet,
    DeepLabV3: smp_deeplab_v3,
    DeepLabV3Plus: smp_deeplab_v3plus,
  },
}
NETWORKS = tuple({kind: None for kinds in SOURCES.values() for kind in kinds})


def table_of(
  network: nn.Module, source: str | None, names: Iterable[str]
) -> tuple[str, Table]:
  """The source, and its names for `network`.

  Args:
    network: one of `NETWORKS`.
    source: whose; None is whose names occur most among `names`.
    names: of the file.

  Raises:
    UserError: an unknown source, or one that does not have this network or
      not with this backbone.
  """
  kind = type(network)
  if source not in (None, *SOURCES):
    raise unknown_name("source of weights", source, SOURCES)
  if source == "smp" and kind is PSPNet:
    raise UserError(
      "source='smp': its PSPNet reads the encoder at stride 8 through other "
      "layers than the paper's; no field of ours makes it, use smp's unet, "
      "deeplab_v3 or deeplab_v3plus, or semseg's pspnet"
    )
  having = [name for name in SOURCES if kind in SOURCES[name]]
  if source not in (None, *having):
    raise UserError(
      f"source={source!r} has no {kind.__name__}; expected "
      + " or ".join(having)
    )
  if source is not None:
    check_backbone(network, source)
    return source, SOURCES[source][kind](network)
  names = list(names)

  def occurring(source: str) -> int:
    return sum(name.startswith(_STARTS[source]) for name in names)

  return table_of(network, max(having, key=occurring), names)


# Beginnings of names that no other source with the same networks has.
_STARTS = {
  "torchvision": ("classifier.0.", "aux_classifier."),
  "semseg": ("layer0.", "ppm."),
  "vainf": ("classifier.classifier.", "classifier.aspp."),
  "milesial": ("inc.", "outc."),
  "smp": ("encoder.", "segmentation_head."),
}


def check_backbone(network: nn.Module, source: str) -> None:
  """Refuses a backbone that `source` has not, or not with our maps.

  Raises:
    UserError: which ones it has.
  """
  backbone = getattr(network, "backbone", None)
  if backbone is None:
    return
  plain = isinstance(backbone, ResNet) and not backbone.squeeze_excite
  if plain or (isinstance(network, UNetBackbone) and isinstance(backbone, VGG)):
    return
  vgg = " or a VGG" if isinstance(network, UNetBackbone) else ""
  raise UserError(
    f"source={source!r}: {type(network).__name__} on a "
    f"{type(backbone).__name__} is not the same network there (other maps or "
    f"none are handed over); expected a plain ResNet{vgg}"
  )


def differences(network: nn.Module, source: str) -> list[str]:
  """Fields in which `network` is not the source's, "FIELD=THEIRS (OURS here)".

  Weights fit all the same, and the answers are others.
  """
  name = next(name for name in FIELDS[source] if MODELS[name] is type(network))
  wanted = FIELDS[source][name]
  pairs = [
    (network, field, value, field)
    for field, value in wanted.items()
    if field not in _TRAINING_ONLY
  ] + [
    (network.backbone, field, value, f"backbone.{field}")
    for field, value in wanted.get("backbone", {}).items()
    # The stride is free: the rates grow with the resolution.
    if hasattr(network.backbone, field) and field != "output_stride"
  ]
  return [
    f"{label}={value!r} ({getattr(module, field)!r} here)"
    for module, field, value, label in pairs
    if getattr(module, field) != value
  ]


def fields_of(
  name: str, source: str, arrays: Mapping[str, Any], backbone: str = ""
) -> dict[str, Any]:
  """The fields, number of classes included, of the network in a file.

  Args:
    name: key of `MODELS`.
    source: whose network.
    arrays: their names and tensors or NumPy arrays.
    backbone: its name; "" recognises ResNets by their blocks.

  Raises:
    UserError: a source that does not have the network.
  """
  fields = dict(FIELDS.get(source, {}).get(name, {}))
  if name == "deeplab_v3" and source == "torchvision":
    fields["auxiliary"] = any(n.startswith("aux_classifier.") for n in arrays)
  if name == "unet" and "up1.up.weight" not in arrays:
    fields["upsample"] = "bilinear"
  found = backbone or resnet_of(arrays)
  if found and name != "unet":
    fields["backbone"] = {"name": found, **fields.get("backbone", {})}
    if name == "unet_backbone" and found.startswith("vgg"):
      fields["centre"] = True
  classifiers = [
    value.shape[0]
    for key, value in arrays.items()
    if re.fullmatch(_CLASSIFIERS, key)
  ]
  return {**fields, "num_classes": int(classifiers[0]) if classifiers else 21}


_CLASSIFIERS = (
  r"(classifier\.4|classifier\.classifier\.[34]|cls\.4|outc\.conv"
  r"|segmentation_head\.0)\.weight"
)


def resnet_of(names: Iterable[str]) -> str:
  """The plain ResNet whose blocks these are; "" if there is none."""
  names = list(names)
  seen = re.compile(r"(?:^|\.)layer([1-4])\.(\d+)\.conv1\.weight$")
  sizes = [0] * 4
  for found in filter(None, map(seen.search, names)):
    stage, block = int(found[1]) - 1, int(found[2]) + 1
    sizes[stage] = max(sizes[stage], block)
  bottleneck = any(n.endswith("layer1.0.conv3.weight") for n in names)
  plain = {"block", "stage_sizes"}
  for name, partial in RESNETS.items():
    fields = partial.keywords
    if set(fields) == plain and fields["stage_sizes"] == tuple(sizes):
      if (fields["block"].expansion > 1) == bottleneck:
        return name
  return ""
