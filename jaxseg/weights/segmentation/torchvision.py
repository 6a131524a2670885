"""fcn_resnet50/101 and deeplabv3_resnet50/101 of torchvision 0.13 to 0.28."""

from typing import Any

from jaxseg.models.deeplab_v3 import VARIANTS, DeepLabV3
from jaxseg.models.fcn_resnet import FCNResNet
from jaxseg.weights.name_table import NameTable, conv_norm
from jaxseg.weights.segmentation.shared_names import (
  aspp,
  fcn_head,
  table_with_backbone,
)

FIELDS: dict[str, dict[str, Any]] = {
  "fcn_resnet": {},
  "deeplab_v3": VARIANTS["torchvision"],
}


def fcn_resnet(network: FCNResNet) -> NameTable:
  """Returns the names of FCN and its auxiliary head."""
  head = fcn_head("head", "classifier")
  head |= fcn_head("aux_head", "aux_classifier")
  return table_with_backbone(network, "backbone.", head)


def deeplab_v3(network: DeepLabV3) -> NameTable:
  """Returns the names of DeepLabV3.

  ASPP is the first layer of its classifier.
  """
  head = {
    **aspp("classifier.0", separable=False),
    **conv_norm("conv", "classifier.1", "classifier.2"),
    "classifier": "classifier.4",
    **fcn_head("aux_head", "aux_classifier"),
  }
  return table_with_backbone(network, "backbone.", head)


TABLES = {FCNResNet: fcn_resnet, DeepLabV3: deeplab_v3}
