"""The parts that several projects name alike: backbone, pyramid, FCN's head."""

import dataclasses

import flax.linen as nn

from jaxseg.weights import tables
from jaxseg.weights.tables import Rows, Table, conv_norm


def in_backbone(network: nn.Module, prefix: str, head: Rows, **fields) -> Table:
  """The backbone's own names behind `prefix`, and `head` for the rest."""
  backbone = network.backbone
  table = tables.SOURCES["torchvision"][type(backbone)](backbone)
  fields = {"renamed": (), "flattened": {}, **fields}
  return dataclasses.replace(
    table, prefix=prefix, head=head, theirs=(), **fields
  )


def aspp(theirs: str, convolution: str) -> Rows:
  """The rows of an `AtrousSpatialPyramid`.

  Args:
    theirs: their module.
    convolution: of the 3x3 branches, "plain" or "separable".
  """
  at = f"{theirs}.convs"
  rows = {
    **conv_norm("aspp/conv1x1", f"{at}.0.0", f"{at}.0.1"),
    **conv_norm("aspp/image", f"{at}.4.1", f"{at}.4.2"),
    **conv_norm("aspp/project", f"{theirs}.project.0", f"{theirs}.project.1"),
  }
  if convolution == "separable":
    return rows | {
      r"aspp/atrous(\d)/depthwise/conv": lambda i: f"{at}.{i}.0.0",
      r"aspp/atrous(\d)/pointwise/conv": lambda i: f"{at}.{i}.0.1",
      r"aspp/atrous(\d)/pointwise/norm": lambda i: f"{at}.{i}.1",
    }
  return rows | conv_norm(
    r"aspp/atrous(\d)", lambda i: f"{at}.{i}.0", lambda i: f"{at}.{i}.1"
  )


def fcn_head(ours: str, theirs: str) -> Rows:
  """Convolution, norm, ReLU, dropout, classifier."""
  return {
    **conv_norm(f"{ours}/conv", f"{theirs}.0", f"{theirs}.1"),
    f"{ours}/classifier": f"{theirs}.4",
  }
