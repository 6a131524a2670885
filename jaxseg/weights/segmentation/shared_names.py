"""Names that several libraries share: those of backbone, ASPP and FCN head."""

import dataclasses

import flax.linen as nn

from jaxseg.weights import classification
from jaxseg.weights.name_table import NameTable, Rows, conv_norm


def table_with_backbone(
  network: nn.Module, backbone_prefix: str, head: Rows, **fields
) -> NameTable:
  """Returns a table with torchvision's names for the backbone's modules.

  Args:
    network: The segmentation network.
    backbone_prefix: Prefix of the library's names of backbone modules.
    head: Rows for all other modules.
    **fields: Further fields of the table.
  """
  table = classification.name_table(network.backbone, "torchvision")
  fields = {"renamed": (), "kernels": {}, **fields}
  return dataclasses.replace(
    table,
    backbone_prefix=backbone_prefix,
    head=head,
    head_prefixes=(),
    **fields,
  )


def aspp(module: str, *, separable: bool) -> Rows:
  """Returns the rows of an `AtrousSpatialPyramid`.

  Args:
    module: The library's name of the module.
    separable: Whether the 3x3 branches are depthwise separable.
  """
  branch = f"{module}.convs"
  rows = {
    **conv_norm("aspp/conv1x1", f"{branch}.0.0", f"{branch}.0.1"),
    **conv_norm("aspp/image", f"{branch}.4.1", f"{branch}.4.2"),
    **conv_norm("aspp/project", f"{module}.project.0", f"{module}.project.1"),
  }
  if separable:
    return rows | {
      r"aspp/atrous(\d)/depthwise/conv": lambda i: f"{branch}.{i}.0.0",
      r"aspp/atrous(\d)/pointwise/conv": lambda i: f"{branch}.{i}.0.1",
      r"aspp/atrous(\d)/pointwise/norm": lambda i: f"{branch}.{i}.1",
    }
  return rows | conv_norm(
    r"aspp/atrous(\d)", lambda i: f"{branch}.{i}.0", lambda i: f"{branch}.{i}.1"
  )


def fcn_head(path: str, module: str) -> Rows:
  """Returns the rows of an `FCNHead`.

  In the libraries it is a sequence of convolution, norm, ReLU, dropout and
  classifier.

  Args:
    path: Path of the head in jaxseg.
    module: The library's name of the head.
  """
  return {
    **conv_norm(f"{path}/conv", f"{module}.0", f"{module}.1"),
    f"{path}/classifier": f"{module}.4",
  }
