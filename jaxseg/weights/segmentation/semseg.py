"""PSPNet in hszhao/semseg, its author's code."""

import dataclasses
from typing import Any

from jaxseg.models.pspnet import PSPNet
from jaxseg.weights.segmentation.parts import fcn_head, in_backbone
from jaxseg.weights.tables import Table, conv_norm

FIELDS: dict[str, dict[str, Any]] = {"pspnet": {}}


def pspnet(network: PSPNet) -> Table:
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


TABLES = {PSPNet: pspnet}
