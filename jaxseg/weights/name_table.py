"""Maps the module paths of a network to a library's names of these modules.

Each row of a table is a regular expression for a module path, and either the
library's name or a function from the groups of the match to that name.
"""

from collections.abc import Callable, Mapping
import dataclasses
import re

import numpy as np

from jaxseg.weights import layouts

Rows = Mapping[str, str | Callable[..., str]]
Convert = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class NameTable:
  """A library's names for the modules of one network.

  Attributes:
    backbone: Rows for the modules of the backbone, by their path in the
      backbone.
    head: Rows for all other modules, by their path in the network.
    head_prefixes: Prefixes of the library's names of the head. A backbone
      that is loaded alone ignores arrays with these prefixes.
    input_conv: Path of the convolution that reads the image, in the backbone
      if there is one.
    kernels: Functions that convert kernels to jaxseg's layout, by a regular
      expression for the path in the network. All other kernels are plain
      convolutions or dense layers.
    renamed: Pairs (expression, replacement) that turn names of older files
      into current ones.
    backbone_prefix: Prefix of the library's names of backbone modules.
  """

  backbone: Rows
  head: Rows
  head_prefixes: tuple[str, ...]
  input_conv: str
  kernels: Mapping[str, Convert] = dataclasses.field(default_factory=dict)
  renamed: tuple[tuple[str, str], ...] = ()
  backbone_prefix: str = ""

  def find(self, path: str) -> str | None:
    """Returns the library's name of a module, or None.

    Args:
      path: Path of the module in the network.
    """
    inside = path.removeprefix("backbone/")
    if inside == path:
      return _look_up(self.head, path)
    name = _look_up(self.backbone, inside)
    return None if name is None else self.backbone_prefix + name

  def kernel_conversion(self, path: str, ndim: int) -> Convert:
    """Returns the function that converts the library's kernel to jaxseg's.

    Args:
      path: Path of the module in the network.
      ndim: Number of axes of the kernel.
    """
    for pattern, convert in self.kernels.items():
      if re.fullmatch(pattern, path):
        return convert
    return layouts.convolution if ndim == 4 else layouts.dense

  def current_name(self, name: str) -> str:
    """Returns the name that an array of an older file has today."""
    for pattern, replacement in self.renamed:
      name = re.sub(pattern, replacement, name)
    return name

  @property
  def input_kernel(self) -> str:
    """Path of the kernel that reads the image."""
    module = self.input_conv
    if self.backbone:
      module = f"backbone/{module}"
    return f"params/{module}/kernel"


def _look_up(rows: Rows, path: str) -> str | None:
  for pattern, name in rows.items():
    match = re.fullmatch(pattern, path)
    if match is None:
      continue
    if isinstance(name, str):
      return name
    groups = (int(g) if g.isdecimal() else g for g in match.groups())
    return name(*groups)
  return None


def conv_norm(
  path: str, conv: str | Callable[..., str], norm: str | Callable[..., str]
) -> Rows:
  """Returns the two rows of a `ConvNormAct`.

  Args:
    path: Regular expression for the path of the `ConvNormAct`.
    conv: The library's name of the convolution, or a function to this name.
    norm: The library's name of the norm, or a function to this name.
  """
  return {f"{path}/conv": conv, f"{path}/norm": norm}
