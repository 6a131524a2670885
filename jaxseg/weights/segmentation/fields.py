"""By which of our fields a network is a source's, and which a file's has."""

from collections.abc import Iterable, Mapping
import re
from typing import Any

import flax.linen as nn

from jaxseg.backbones.resnet import RESNETS
from jaxseg.models import MODELS
from jaxseg.weights.segmentation.sources import FIELDS

# Fields that change no answer of a trained network.
_TRAINING_ONLY = ("dropout_rate", "dropout_levels", "norm", "backbone")
_CLASSIFIERS = (
  r"(classifier\.4|classifier\.classifier\.[34]|cls\.4|outc\.conv"
  r"|segmentation_head\.0)\.weight"
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
    source: whose network; `from_torch` refuses one that does not have it.
    arrays: their names and tensors or NumPy arrays.
    backbone: its name; "" recognises ResNets by their blocks.
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
