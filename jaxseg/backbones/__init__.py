"""Backbones: image -> {"c1" ... "c5"}; a table and `create`."""

from collections.abc import Mapping

import flax.linen as nn

from jaxseg.backbones.resnet import RESNETS
from jaxseg.errors import unknown_name

BACKBONES = {**RESNETS}


def create(spec: str | Mapping, **defaults) -> nn.Module:
  """Builds a backbone from its name, or a dict of its name and fields.

  Args:
    spec: "resnet50", or {"name": "resnet50", "output_stride": 8}.
    **defaults: fields that `spec` does not name, e.g. `norm` and `dtype`.

  Raises:
    UserError: no such backbone (the error says which exist).
  """
  fields = {"name": spec} if isinstance(spec, str) else dict(spec)
  name = fields.pop("name")
  if name not in BACKBONES:
    raise unknown_name("backbone", name, BACKBONES)
  return BACKBONES[name](**{**defaults, **fields}, name="backbone")
