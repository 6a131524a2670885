"""Recognises which network is in a third-party weight file."""

from collections.abc import Iterable, Mapping
import re
from typing import Any

from jaxseg.backbones.resnet import RESNETS
from jaxseg.models.unet import UNet
from jaxseg.weights.segmentation.libraries import FIELDS

# Names, in any of the libraries, of the kernel that computes the logits.
_CLASSIFIERS = (
  r"(classifier\.4|classifier\.classifier\.[34]|cls\.4|outc\.conv"
  r"|segmentation_head\.0)\.weight"
)


def recognise_fields(
  name: str, library: str, arrays: Mapping[str, Any], backbone: str = ""
) -> dict[str, Any]:
  """Returns the fields of the network in a file.

  "num_classes" is missing if the file has no layer that computes logits.

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
  if name == "unet":
    fields |= _recognise_unet(arrays)
  backbone = backbone or recognise_resnet(arrays)
  if backbone and name != "unet":
    fields["backbone"] = {"name": backbone, **fields.get("backbone", {})}
    if name == "unet_backbone" and backbone.startswith("vgg"):
      fields["centre"] = True
  for kernel, value in arrays.items():
    if re.fullmatch(_CLASSIFIERS, kernel):
      fields["num_classes"] = int(value.shape[0])
  return fields


def _recognise_unet(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of a U-Net of milesial's by the shapes of its kernels.

  The features are those of each level of the contracting path. Bilinear
  upsampling halves them at the coarsest level.
  """
  kernels = ["inc.double_conv.3.weight"]
  while kernels[-1] in arrays:
    down = f"down{len(kernels)}.maxpool_conv.1.double_conv.3.weight"
    kernels.append(down)
  features = tuple(int(arrays[kernel].shape[0]) for kernel in kernels[:-1])
  fields = {}
  if "up1.up.weight" not in arrays:
    fields["upsample"] = "bilinear"
    features = (*features[:-1], 2 * features[-1]) if features else ()
  if len(features) > 1 and features != UNet.features:
    fields["features"] = features
  return fields


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
