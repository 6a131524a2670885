"""U-Net in milesial/Pytorch-UNet, with both kinds of upsampling."""

from typing import Any

from jaxseg.models.unet import VARIANTS, UNet
from jaxseg.weights.layouts import transposed_convolution
from jaxseg.weights.name_table import NameTable, conv_norm

FIELDS: dict[str, dict[str, Any]] = {
  "unet": {**VARIANTS["milesial"], "norm": "batch"}
}


def unet(network: UNet) -> NameTable:
  """Returns the names of U-Net.

  The contracting path is `inc`, `down1`, ..., the expanding path `up1`, ....
  """
  depth = len(network.features) - 1
  # Positions of the two convolutions in `double_conv`.
  position = {1: 0, 2: 3}

  def down(level, i, norm):
    block = "inc" if level == 1 else f"down{level - 1}.maxpool_conv.1"
    return f"{block}.double_conv.{position[i] + norm}"

  def up(level, i, norm):
    return f"up{depth + 1 - level}.conv.double_conv.{position[i] + norm}"

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
  return NameTable(
    backbone={},
    head=head,
    head_prefixes=(),
    input_conv="down1/conv1/conv",
    kernels={r"upsample\d": transposed_convolution},
  )


TABLES = {UNet: unet}
