"""DeepLabV3 and V3+ on ResNets in VainF/DeepLabV3Plus-Pytorch."""

from typing import Any

import numpy as np

from jaxseg.models.deeplab_v3 import VARIANTS, DeepLabV3
from jaxseg.models.deeplab_v3plus import DeepLabV3Plus
from jaxseg.weights import layouts
from jaxseg.weights.name_table import NameTable, conv_norm
from jaxseg.weights.segmentation.shared_names import aspp, table_with_backbone

# Fields of the backbone that differ from the paper's.
_RESNET = {"output_stride": 16, "stem": "conv7"}
FIELDS: dict[str, dict[str, Any]] = {
  "deeplab_v3": {
    **VARIANTS["torchvision"],
    "auxiliary": False,
    "dropout_rate": 0.1,
    "backbone": {**VARIANTS["torchvision"]["backbone"], **_RESNET},
  },
  "deeplab_v3plus": {
    "separable_aspp": False,
    "separable_decoder": False,
    "decoder_convs": 1,
    "align_corners": False,
    "backbone": _RESNET,
  },
}


def deeplab_v3(network: DeepLabV3) -> NameTable:
  """Returns the names of DeepLabV3: torchvision's, in another `classifier.`."""
  head = {
    **aspp("classifier.classifier.0", separable=False),
    **conv_norm("conv", "classifier.classifier.1", "classifier.classifier.2"),
    "classifier": "classifier.classifier.4",
  }
  return table_with_backbone(network, "backbone.", head)


def deeplab_v3plus(network: DeepLabV3Plus) -> NameTable:
  """Returns the names of DeepLabV3+.

  VainF concatenates the low-level features first, jaxseg last, so the input
  channels of `decoder1` are reordered.
  """
  low = network.low_level_features
  head = {
    **aspp("classifier.aspp", separable=False),
    **conv_norm("low_level", "classifier.project.0", "classifier.project.1"),
    **conv_norm(
      "decoder1", "classifier.classifier.0", "classifier.classifier.1"
    ),
    "classifier": "classifier.classifier.3",
  }

  def low_level_last(weight):
    return layouts.convolution(np.roll(weight, -low, axis=1))

  kernels = {"decoder1/conv": low_level_last}
  return table_with_backbone(network, "backbone.", head, kernels=kernels)


TABLES = {DeepLabV3: deeplab_v3, DeepLabV3Plus: deeplab_v3plus}
