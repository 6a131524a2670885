"""Removes what training scripts put around a PyTorch state dict.

A checkpoint is often `{"state_dict": ..., "epoch": ...}`, and all names in a
state dict have a prefix if the network was wrapped when it was saved.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from jaxseg.errors import UserError

# Keys of a state dict in a checkpoint: those of PyTorch's tutorials, Lightning
# and semseg ("state_dict"), torchvision and timm ("model"), and VainF.
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state")
# Prefixes of all names: of DataParallel, Lightning and torch.compile.
PREFIXES = ("module.", "model.", "_orig_mod.")


def unwrap(path: PathLike, loaded: Any) -> dict[str, Any]:
  """Returns the tensors of a checkpoint by name.

  Entries that are neither tensors nor dicts, such as milesial's "mask_values",
  are left out, because no network has them.

  Args:
    path: The file, for messages.
    loaded: The object in the file.

  Raises:
    UserError: It holds no state dict, or several.
  """
  for key in WRAPPERS:
    if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
      loaded = loaded[key]
  if not isinstance(loaded, Mapping) or not loaded:
    raise UserError(
      f"{path}: expected a state dict of named arrays, found "
      f"{type(loaded).__name__}; save model.state_dict()"
    )
  tensors = {k: v for k, v in loaded.items() if hasattr(v, "detach")}
  for name, value in loaded.items():
    if isinstance(value, Mapping) or not tensors:
      raise UserError(
        f"{path}: entry {name!r} is a {type(value).__name__}, not an array; "
        f"expected a state dict, alone or as one of {', '.join(WRAPPERS)}: "
        "save model.state_dict()"
      )
  return tensors


def without_prefixes(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Removes the prefixes that all names share."""
  flat = dict(flat)
  while flat:
    shared = [p for p in PREFIXES if all(name.startswith(p) for name in flat)]
    if not shared:
      break
    flat = {name.removeprefix(shared[0]): flat[name] for name in flat}
  return flat
