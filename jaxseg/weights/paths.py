"""Paths of variables, such as `params/backbone/stem/conv/kernel`.

A path begins with the collection ("params" or "batch_stats"), continues with
the names of the modules and ends with the name of the array.
"""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

COLLECTIONS = ("params", "batch_stats")


def flatten(variables: Mapping) -> dict[str, Any]:
  """Converts `{"params": {"head": ...}}` to `{"params/head/...": ...}`."""
  return traverse_util.flatten_dict(variables, sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict:
  """Inverts `flatten`."""
  return traverse_util.unflatten_dict(flat, sep="/")


def are_paths(names: Mapping[str, Any]) -> bool:
  """Returns whether all keys are paths of variables, not a library's names."""
  return bool(names) and all(
    name.split("/")[0] in COLLECTIONS for name in names
  )


def without_collection(path: str) -> str:
  """Converts `params/head/kernel` to `head/kernel`."""
  return path.partition("/")[2]


def put_in_backbone(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Converts `params/stem/...` to `params/backbone/stem/...`."""
  return {
    path.replace("/", "/backbone/", 1): value for path, value in flat.items()
  }


def take_backbone(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Inverts `put_in_backbone`, and drops paths outside of the backbone."""
  return {
    path.replace("/backbone/", "/", 1): value
    for path, value in flat.items()
    if without_collection(path).startswith("backbone/")
  }
