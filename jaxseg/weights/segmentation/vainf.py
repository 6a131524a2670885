"""DeepLabV3 and V3+ on ResNets in VainF/DeepLabV3Plus-Pytorch."""

from typing import Any

import numpy as np

from jaxseg.models.deeplab_v3 import DeepLabV3
from jaxseg.models.deeplab_v3plus import DeepLabV3Plus
from jaxseg.weights.segmentation.parts import aspp, in_backbone
from jaxseg.weights.tables import Table, conv_norm

# The backbone's fields are those that the network's own default lacks.
_RESNET = {"output_stride": 16, "stem": "conv7"}
FIELDS: dict[str, dict[str, Any]] = {
  "deeplab_v3": {
    "variant": "torchvision",
    "auxiliary": False,
    "dropout_rate": 0.1,
    "backbone": _RESNET,
  },
  "deeplab_v3plus": {
    "separable_aspp": False,
    "separable_decoder": False,
    "decoder_convs": 1,
    "align_corners": False,
    "backbone": _RESNET,
  },
}


def deeplab_v3(network: DeepLabV3) -> Table:
  """torchvision's, one level deeper."""
  head = {
    **aspp("classifier.classifier.0", "plain"),
    **conv_norm("conv", "classifier.classifier.1", "classifier.classifier.2"),
    "classifier": "classifier.classifier.4",
  }
  return in_backbone(network, "backbone.", head)


def deeplab_v3plus(network: DeepLabV3Plus) -> Table:
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


TABLES = {DeepLabV3: deeplab_v3, DeepLabV3Plus: deeplab_v3plus}
