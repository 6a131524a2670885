"""PSPNet in hszhao/semseg, the code of its author."""

import dataclasses
from typing import Any

from jaxseg.models.pspnet import PSPNet
from jaxseg.weights.name_table import NameTable, conv_norm
from jaxseg.weights.segmentation.shared_names import (
  fcn_head,
  table_with_backbone,
)

FIELDS: dict[str, dict[str, Any]] = {"pspnet": {}}


def pspnet(network: PSPNet) -> NameTable:
  """Returns the names of PSPNet.

  The deep stem and each level of the pyramid are sequences.
  """
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
  table = table_with_backbone(network, "", head)
  return dataclasses.replace(
    table, backbone={**table.backbone, **stem}, input_conv="stem1/conv"
  )


TABLES = {PSPNet: pspnet}
