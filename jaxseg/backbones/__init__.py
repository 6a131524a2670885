"""Backbones: image -> {"c1" ... "c5"}; a table and `create`."""

from collections.abc import Mapping

import flax.linen as nn

from jaxseg.backbones.alexnet import ALEXNETS
from jaxseg.backbones.densenet import DENSENETS
from jaxseg.backbones.efficientnet import EFFICIENTNETS
from jaxseg.backbones.googlenet import GOOGLENETS
from jaxseg.backbones.mobilenet_v2 import MOBILENETS
from jaxseg.backbones.resnet import RESNETS
from jaxseg.backbones.vgg import VGGS
from jaxseg.backbones.xception import XCEPTIONS
from jaxseg.errors import unknown_name

# Each entry is a `functools.partial` of a module class.
BACKBONES = {
  **ALEXNETS,
  **VGGS,
  **GOOGLENETS,
  **RESNETS,
  **DENSENETS,
  **EFFICIENTNETS,
  **XCEPTIONS,
  **MOBILENETS,
}


def create(spec: str | Mapping, **defaults) -> nn.Module:
  """Builds a backbone from its name, or a dict of its name and fields.

  Args:
    spec: "resnet50", or {"name": "resnet50", "output_stride": 8}.
    **defaults: fields that `spec` does not name, e.g. `norm` and `dtype`; one
      that the backbone does not have (AlexNet has no `norm`) is left out.

  Raises:
    UserError: no such backbone, or a field in `spec` that it does not have
      (the error says which exist).
  """
  fields = {"name": spec} if isinstance(spec, str) else dict(spec)
  name = fields.pop("name")
  if name not in BACKBONES:
    raise unknown_name("backbone", name, BACKBONES)
  module = BACKBONES[name]
  known = module.func.__dataclass_fields__.keys() - {"parent", "name"}
  for field in fields:
    if field not in known:
      raise unknown_name(f"field of {name}", field, known)
  defaults = {k: v for k, v in defaults.items() if k in known}
  return module(**{**defaults, **fields}, name="backbone")
