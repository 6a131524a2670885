"""U-Net in milesial/Pytorch-UNet, both ways of upsampling."""

from typing import Any

from jaxseg.models.unet import SAME, UNet
from jaxseg.weights.tables import Table, conv_norm

FIELDS: dict[str, dict[str, Any]] = {"unet": {**SAME, "norm": "batch"}}


def unet(network: UNet) -> Table:
  """`inc`, `down1` ... and back through `up1` ...; a stamp is [in, out]."""
  depth = len(network.features) - 1
  at = {1: 0, 2: 3}

  def down(level, i, norm):
    block = "inc" if level == 1 else f"down{level - 1}.maxpool_conv.1"
    return f"{block}.double_conv.{at[i] + norm}"

  def up(level, i, norm):
    return f"up{depth + 1 - level}.conv.double_conv.{at[i] + norm}"

  head = {
    **conv_norm(
      r"down(\d)/conv(\d)",
      lambda level, i: down(level, i, 0),
      lambda level, i: down(level, i, 1),
    ),
    **conv_norm(
      r"up(\d)/conv(\d)",
      lambda level, i: up(level, i, 0),
      lambda level, i: up(level, i, 1),
    ),
    r"upsample(\d)": lambda level: f"up{depth + 1 - level}.up",
    "classifier": "outc.conv",
  }
  return Table(
    backbone={},
    head=head,
    theirs=(),
    first="down1/conv1/conv",
    prepared={r"upsample\d": lambda weight: weight.swapaxes(0, 1)},
  )


TABLES = {UNet: unet}
