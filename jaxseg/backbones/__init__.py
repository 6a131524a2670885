"""The table of backbones, and the functions that build them.

A backbone maps images to `{"c1": ..., "c5": ...}`.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

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


# Fields that `models.create` passes on from the network.
SHARED_FIELDS = frozenset({"norm", "dtype", "param_dtype"})


def create(spec: str | Mapping, **fields) -> nn.Module:
  """Builds a backbone from its name, or from a dict of its name and fields.

  Args:
    spec: "resnet50", or {"name": "resnet50", "output_stride": 8}.
    **fields: Further fields; those in `spec` take precedence.

  Raises:
    UserError: The backbone is unknown or lacks a field; the error lists those
      that exist.
  """
  own = {"name": spec} if isinstance(spec, str) else dict(spec)
  name = own.pop("name")
  fields = {**fields, **own}
  known = field_names(name)
  for field in fields:
    if field not in known:
      raise unknown_name(f"field of {name}", field, known)
  return BACKBONES[name](**fields, name="backbone")


def field_names(name: str) -> frozenset[str]:
  """Returns the names of all fields of a backbone.

  Raises:
    UserError: The backbone is unknown.
  """
  if name not in BACKBONES:
    raise unknown_name("backbone", name, BACKBONES)
  return frozenset(defaults(BACKBONES[name]))


def fields(name: str) -> dict[str, Any]:
  """Returns the fields of a backbone that a configuration can hold.

  Args:
    name: Key of `BACKBONES`.

  Returns:
    Each field with its value: numbers, strings, booleans, None and tuples of
    them. `SHARED_FIELDS` and fields that hold functions or classes, such as
    `act`, are omitted.

  Raises:
    UserError: The backbone is unknown.
  """
  field_names(name)
  return writable(defaults(BACKBONES[name]))


def defaults(entry: Callable[..., nn.Module]) -> dict[str, Any]:
  """Returns the default of each field of a table's entry.

  Args:
    entry: A module class, or a `functools.partial` of one.

  Returns:
    Defaults by name, `dataclasses.MISSING` for fields without one. Flax's own
    fields, `parent` and `name`, are omitted.
  """
  found = {
    field.name: field.default
    for field in dataclasses.fields(getattr(entry, "func", entry))
    if field.name not in ("parent", "name")
  }
  return {**found, **getattr(entry, "keywords", {})}


def writable(values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the values that a configuration can hold, without shared fields."""
  return {
    name: value
    for name, value in values.items()
    if name not in SHARED_FIELDS and _is_plain(value)
  }


def _is_plain(value: Any) -> bool:
  if isinstance(value, tuple):
    return all(map(_is_plain, value))
  return value is None or isinstance(value, bool | int | float | str)
