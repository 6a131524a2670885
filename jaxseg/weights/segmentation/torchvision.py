"""torchvision's (0.13 to 0.28) fcn_resnet50/101 and deeplabv3_resnet50/101."""

from typing import Any

from jaxseg.models.deeplab_v3 import DeepLabV3
from jaxseg.models.fcn_resnet import FCNResNet
from jaxseg.weights.segmentation.parts import aspp, fcn_head, in_backbone
from jaxseg.weights.tables import Table, conv_norm

FIELDS: dict[str, dict[str, Any]] = {
  "fcn_resnet": {},
  "deeplab_v3": {"variant": "torchvision"},
}


def fcn_resnet(network: FCNResNet) -> Table:
  """FCN's two heads."""
  head = fcn_head("head", "classifier")
  head |= fcn_head("aux_head", "aux_classifier")
  return in_backbone(network, "backbone.", head)


def deeplab_v3(network: DeepLabV3) -> Table:
  """The pyramid is the classifier's first layer."""
  head = {
    **aspp("classifier.0", "plain"),
    **conv_norm("conv", "classifier.1", "classifier.2"),
    "classifier": "classifier.4",
    **fcn_head("aux_head", "aux_classifier"),
  }
  return in_backbone(network, "backbone.", head)


TABLES = {FCNResNet: fcn_resnet, DeepLabV3: deeplab_v3}
