"""Recognises which network is in a third-party weight file."""

from collections.abc import Iterable, Mapping
import re
from typing import Any

from jaxseg.backbones.resnet import RESNETS
from jaxseg.weights.segmentation.libraries import FIELDS

# Names, in any of the libraries, of the kernel that computes the logits.
_CLASSIFIERS = (
  r"(classifier\.4|classifier\.classifier\.[34]|cls\.4|outc\.conv"
  r"|segmentation_head\.0)\.weight"
)
# Number of classes of a file without any of these kernels.
_DEFAULT_CLASSES = 21


def recognise_fields(
  name: str, library: str, arrays: Mapping[str, Any], backbone: str = ""
) -> dict[str, Any]:
  """Returns the fields of the network in a file, with the number of classes.

  Args:
    name: Key of `MODELS`.
    library: The library that the file comes from. It is not checked here;
      `from_torch` refuses a library that does not have the network.
    arrays: Names and tensors or NumPy arrays of the file.
    backbone: Key of `BACKBONES`. "" recognises a ResNet by its blocks.
  """
  fields = dict(FIELDS.get(library, {}).get(name, {}))
  if name == "deeplab_v3" and library == "torchvision":
    fields["auxiliary"] = any(n.startswith("aux_classifier.") for n in arrays)
  if name == "unet" and "up1.up.weight" not in arrays:
    fields["upsample"] = "bilinear"
  backbone = backbone or recognise_resnet(arrays)
  if backbone and name != "unet":
    fields["backbone"] = {"name": backbone, **fields.get("backbone", {})}
    if name == "unet_backbone" and backbone.startswith("vgg"):
      fields["centre"] = True
  return {**fields, "num_classes": _num_classes(arrays)}


def _num_classes(arrays: Mapping[str, Any]) -> int:
  for name, value in arrays.items():
    if re.fullmatch(_CLASSIFIERS, name):
      return int(value.shape[0])
  return _DEFAULT_CLASSES


def recognise_resnet(names: Iterable[str]) -> str:
  """Returns the plain ResNet that has blocks of these names, "" if none has.

  Args:
    names: Names of the arrays in a file.
  """
  names = list(names)
  pattern = re.compile(r"(?:^|\.)layer([1-4])\.(\d+)\.conv1\.weight$")
  sizes = [0] * 4
  for name in names:
    match = pattern.search(name)
    if match:
      stage, block = int(match[1]) - 1, int(match[2]) + 1
      sizes[stage] = max(sizes[stage], block)
  bottleneck = any(n.endswith("layer1.0.conv3.weight") for n in names)
  for resnet, partial in RESNETS.items():
    fields = partial.keywords
    is_plain = set(fields) == {"block", "stage_sizes"}
    if is_plain and fields["stage_sizes"] == tuple(sizes):
      if (fields["block"].expansion > 1) == bottleneck:
        return resnet
  return ""
