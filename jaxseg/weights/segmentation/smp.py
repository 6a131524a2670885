"""Networks of segmentation_models_pytorch (smp) 0.3 to 0.6.

These are Unet on ResNets and VGGs, and DeepLabV3 and DeepLabV3Plus on ResNets.
`libraries` refuses networks that no fields of jaxseg reproduce: smp's PSPNet,
and networks on encoders that return other features than jaxseg's backbones.
"""

from typing import Any

from jaxseg.models.deeplab_v3 import VARIANTS, DeepLabV3
from jaxseg.models.deeplab_v3plus import DeepLabV3Plus
from jaxseg.models.unet_backbone import UNetBackbone
from jaxseg.weights.name_table import NameTable, conv_norm
from jaxseg.weights.segmentation.shared_names import aspp, table_with_backbone

# Fields of the backbone that differ from the paper's.
_RESNET = {"stem": "conv7", "contract_dilation": False}
FIELDS: dict[str, dict[str, Any]] = {
  "unet_backbone": {},
  "deeplab_v3": {
    **VARIANTS["torchvision"],
    "auxiliary": False,
    "align_corners": True,
    "backbone": {**VARIANTS["torchvision"]["backbone"], **_RESNET},
  },
  "deeplab_v3plus": {
    "rates": (12, 24, 36),
    "norm_between": False,
    "aspp_conv": True,
    "decoder_convs": 1,
    "dropout_rate": 0.5,
    "backbone": {**_RESNET, "output_stride": 16},
  },
}


def unet_backbone(network: UNetBackbone) -> NameTable:
  """Returns the names of Unet.

  Its five blocks are numbered from the coarsest. VGGs have a centre.
  """
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
  return table_with_backbone(network, "encoder.", head)


def deeplab_v3(network: DeepLabV3) -> NameTable:
  """Returns the names of DeepLabV3.

  Before smp 0.4 its decoder was a sequence.
  """
  head = {
    **aspp("decoder.aspp", separable=False),
    **conv_norm("conv", "decoder.conv", "decoder.bn"),
    "classifier": "segmentation_head.0",
  }
  older = (
    (r"^decoder\.0\.", "decoder.aspp."),
    (r"^decoder\.1\.", "decoder.conv."),
    (r"^decoder\.2\.", "decoder.bn."),
  )
  return table_with_backbone(network, "encoder.", head, renamed=older)


def deeplab_v3plus(network: DeepLabV3Plus) -> NameTable:
  """Returns the names of DeepLabV3Plus.

  Its separable convolutions have a single norm.
  """

  def separable(ours, theirs, norm):
    return {
      f"{ours}/depthwise/conv": f"{theirs}.0",
      f"{ours}/pointwise/conv": f"{theirs}.1",
      f"{ours}/pointwise/norm": norm,
    }

  head = {
    **aspp("decoder.aspp.0", separable=True),
    **separable("aspp_conv", "decoder.aspp.1", "decoder.aspp.2"),
    **conv_norm("low_level", "decoder.block1.0", "decoder.block1.1"),
    **separable("decoder1", "decoder.block2.0", "decoder.block2.1"),
    "classifier": "segmentation_head.0",
  }
  return table_with_backbone(network, "encoder.", head)


TABLES = {
  UNetBackbone: unet_backbone,
  DeepLabV3: deeplab_v3,
  DeepLabV3Plus: deeplab_v3plus,
}
