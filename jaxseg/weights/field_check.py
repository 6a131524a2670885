"""Refuses weights that a network with other fields would read differently.

A weight file loads wherever the shapes match, but the network may compute
something else with it: other dilations, another epsilon, other padding. Such
fields are refused, unless `init.changed` names them.

Some fields change by design, when weights are loaded into

- a network: the output stride, because the dilations follow it, so that each
  weight reads the same pixels of the features (DeepLab trains at 16 and
  evaluates at 8). The difference is printed;
- a backbone: also the fields in `_ADAPTED`, because most papers load the
  weights of a classification network into a backbone that they adapted, and
  train on. Those that are the paper's idea of dilation are not even printed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn

from jaxseg.errors import UserError, unknown_name
from jaxseg.weights.network_fields import (
  Difference,
  describe,
  differences,
  listed,
)

# Fields of a backbone that become dilation.
_DILATION = {"output_stride", "multi_grid"}
# Fields of a backbone that papers adapt to segmentation.
_ADAPTED = {
  "stride_in_1x1", "ceil_mode", "padding", "pad_inner", "pool_window",
  "dense_pools", "dilate_pools", "contract_dilation", "norm.epsilon",
}  # fmt: skip


def check_names(network: nn.Module, changed: Iterable[str]) -> None:
  """Raises UserError if `init.changed` names a field that does not exist."""
  known = set(_names(describe(network)))
  for field in changed:
    if field not in known:
      raise unknown_name("field in init.changed", field, known)


def _names(fields: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
  """Yields the dotted name of each field of a description."""
  for name, value in fields.items():
    if isinstance(value, Mapping):
      yield from _names(value, f"{prefix}{name}.")
    elif name != "kind":
      yield f"{prefix}{name}"


def check_model(
  network: nn.Module,
  original: Mapping[str, Any],
  option: str,
  changed: Sequence[str],
) -> None:
  """Checks the fields of a network whose weights are all loaded.

  Args:
    network: The network.
    original: Description of the network that the weights were made for.
    option: "init.model=FILE", the beginning of every message.
    changed: Fields that may differ.

  Raises:
    UserError: Other fields differ.
  """
  found = differences(network, original)
  _check(found, {"backbone.output_stride"}, option, changed)


def check_backbone(
  backbone: nn.Module,
  original: Mapping[str, Any],
  option: str,
  changed: Sequence[str],
) -> None:
  """Checks the fields of a network of which the backbone is loaded.

  Args:
    backbone: The backbone.
    original: Description of the backbone that the weights were made for.
    option: "init.backbone=FILE", the beginning of every message.
    changed: Fields of the network that may differ.

  Raises:
    UserError: Other fields differ.
  """
  found = [
    Difference(f"backbone.{each.field}", each.original, each.here)
    for each in differences(backbone, original)
    if each.field not in _DILATION
  ]
  _check(found, {f"backbone.{field}" for field in _ADAPTED}, option, changed)


def _check(
  found: Sequence[Difference],
  printed: Iterable[str],
  option: str,
  changed: Sequence[str],
) -> None:
  """Refuses differences, except for those that are only printed."""
  allowed = {*printed, *changed}
  refused = [each for each in found if each.field not in allowed]
  if refused:
    flags = " ".join(dict.fromkeys(each.option for each in refused))
    names = tuple(each.field for each in refused)
    raise UserError(
      f"{option}: the weights were made for a network with {listed(refused)}, "
      f"and compute something else here; set {flags}, or "
      f'--config.init.changed="{names}" to change this on purpose'
    )
  if found:
    print(
      f"note: {option}: made for a network with {listed(found)}", flush=True
    )
