"""Fields of a network that change its outputs for the same weights.

The same weights fit every network with parameters of the same shapes. Other
fields, such as dilations or `align_corners`, change the outputs all the same.

`describe` returns the fields of a network as plain values, which a weight file
stores. `differences` compares a network with such a description.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import shlex
from typing import Any

import flax.linen as nn

from jaxseg.layers.norm import NORMS

# Fields of a norm that change its outputs.
_NORM_FIELDS = ("epsilon", "groups")
# Fields that do not change the outputs of a trained network.
_TRAINING_ONLY = {
  "dropout_rate", "dropout_levels", "dropout_stages", "channel_dropout",
  "block_dropout_rate", "stochastic_depth", "kernel_init", "initialiser",
  "init_deviation", "dtype", "param_dtype",
}  # fmt: skip
# Fields whose value follows from the names and shapes of the weights.
_FIXED_BY_SHAPES = {
  "num_classes", "features", "up_features", "low_level_features",
  "decoder_features", "head_features", "aux_features", "cascade_blocks",
  "final_conv", "auxiliary", "aux", "centre", "stage_sizes", "block", "width",
  "groups", "width_per_group", "batch_norm", "deformable_stages", "modulated",
  "offset_groups",
}  # fmt: skip
# Fields of Flax.
_FLAX = {"parent", "name"}

Description = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Difference:
  """A field that has another value than the weights were made for.

  Attributes:
    field: The field, such as "rates", "backbone.output_stride" or
      "norm.epsilon".
    original: Value in the network of the weights.
    here: Value in the network that loads them.
  """

  field: str
  original: Any
  here: Any

  def __str__(self) -> str:
    return f"{self.field}={_format(self.original)} ({_format(self.here)} here)"

  @property
  def option(self) -> str:
    """The option of a command that sets the field to its original value."""
    field = self.field.removeprefix("backbone.")
    if field.startswith("norm."):
      name = field
    else:
      name = f"model.{self.field}"
    value = self.original
    value = value if isinstance(value, str) else _format(value)
    return shlex.quote(f"--config.{name}={value}")


def describe(network: nn.Module) -> Description:
  """Returns the fields of a network, except those that only training reads.

  Args:
    network: A network or a backbone.

  Returns:
    `{"kind": CLASS, FIELD: value, ..., "norm": {"name": ..., "epsilon": ...},
    "backbone": {"kind": CLASS, ...}}`, values that JSON can hold. Functions and
    classes are their names.
  """
  found: Description = {"kind": type(network).__name__}
  for field in dataclasses.fields(network):
    if field.name in _TRAINING_ONLY | _FLAX:
      continue
    value = getattr(network, field.name)
    if field.name == "norm":
      found["norm"] = _describe_norm(value)
    elif isinstance(value, nn.Module):
      found[field.name] = describe(value)
    else:
      found[field.name] = _plain(value)
  return found


def _describe_norm(norm: Any) -> Description:
  """Returns the name of a norm, as in `NORMS`, its epsilon and its groups."""
  if norm is None:
    return {"name": "none"}
  layer = norm()
  names = {kind: name for name, kind in NORMS.items()}
  found = {"name": names.get(type(layer), type(layer).__name__)}
  for field in _NORM_FIELDS:
    if hasattr(layer, field):
      found[field] = getattr(layer, field)
  return found


def _plain(value: Any) -> Any:
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  if callable(value):
    return getattr(value, "__name__", type(value).__name__)
  return value


def differences(
  network: nn.Module, original: Mapping[str, Any]
) -> list[Difference]:
  """Returns the fields whose values change the outputs for the same weights.

  Networks or backbones of different classes are not compared: the names and
  shapes of their arrays differ.

  Args:
    network: A network or a backbone.
    original: Description of the network that the weights were made for.
  """
  here = describe(network)
  found = _compare(here, original, "")
  if "backbone" in here and "backbone" in original:
    found += _compare(here["backbone"], original["backbone"], "backbone.")
  return found


def _compare(
  here: Mapping[str, Any], original: Mapping[str, Any], prefix: str
) -> list[Difference]:
  if here["kind"] != original.get("kind"):
    return []
  ignored = {"kind", "backbone"} | _FIXED_BY_SHAPES
  ignored |= _without_effect(here) | _without_effect(original)
  fields = [f for f in here if f in original and f not in ignored]
  pairs = {f"{prefix}{f}": (original[f], here[f]) for f in fields}
  norms = pairs.pop(f"{prefix}norm", None)
  if norms is not None:
    theirs, ours = norms
    same = theirs.get("name") == ours["name"]
    for key in _NORM_FIELDS if same else ("name",):
      value = ours.get(key)
      pairs[f"{prefix}norm.{key}"] = (theirs.get(key, value), value)
  return [
    Difference(field, theirs, ours)
    for field, (theirs, ours) in pairs.items()
    if theirs != ours
  ]


def _without_effect(fields: Mapping[str, Any]) -> set[str]:
  """Returns the fields that other fields of the same module make irrelevant."""
  kind, ignored = fields["kind"], set()
  if kind == "UNet":
    if fields["upsample"] != "transposed":
      ignored.add("act_upsampled")
    if fields["padding"] == "same":
      ignored.add("mirrored")
  if kind == "ResNet":
    if fields["block"] != "Bottleneck":
      ignored.add("stride_in_1x1")
    if fields["output_stride"] == 32:
      ignored.add("contract_dilation")
  if kind == "VGG":
    if not fields["batch_norm"]:
      ignored.add("norm")
    if fields["output_stride"] == 32:
      ignored |= {"dense_pools", "dilate_pools"}
  return ignored


def _format(value: Any) -> str:
  if isinstance(value, list):
    value = tuple(
      tuple(item) if isinstance(item, list) else item for item in value
    )
  return repr(value)


def listed(found: Iterable[Difference]) -> str:
  """Returns differences as one text."""
  return ", ".join(map(str, found))
