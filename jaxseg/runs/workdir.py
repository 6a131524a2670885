"""The configuration that a work directory belongs to: `config.json`.

`config.json` holds the resolved configuration of a run, from which every
command rebuilds the network. Training continues in a work directory only if
all fields that change the result are the same.
"""

import json
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxseg import files
from jaxseg.config import base
from jaxseg.errors import UserError

# Names, or beginnings of names, of fields that may change when a run
# continues: the parameters after N steps do not depend on them.
FREE_FIELDS = (
  "data.path",
  "data.prepared",
  "data.loader",
  "data.eval_split",
  "train.log_every",
  "train.eval_every",
  "train.checkpoint_every",
  "train.keep_last",
  "train.picture_count",
  "eval.",
)

# Parts of the configuration whose fields differ between networks.
_WHOLE = ("model", "heads")


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns the leaves of nested dicts by dotted name."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat.update(_flatten(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def save_config(config: ConfigDict, workdir: epath.PathLike) -> None:
  """Writes `config.json`.

  Raises:
    UserError: The disk is full or refuses the file.
  """
  text = json.dumps(config.to_dict(), indent=2) + "\n"
  files.write_text(files.to_path(workdir) / "config.json", text)


def load_config(workdir: epath.PathLike) -> ConfigDict:
  """Reads `config.json` and turns its lists into tuples.

  Fields that are missing because an earlier version of jaxseg wrote the file
  get their default values, so that its run can be read and continued.

  Raises:
    UserError: The file does not exist, cannot be read or is not valid JSON.
  """
  path = files.to_path(workdir) / "config.json"
  if not _exists(path):
    raise UserError(
      f"{path}: no such file; expected a work directory written by train.py"
    )
  try:
    with _read_errors(path):
      tree = json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise UserError(f"{path}: not a readable config.json: {error}") from None
  return ConfigDict(_merge(base().to_dict(), _tuples(tree))).lock()


def _exists(path: epath.Path) -> bool:
  with _read_errors(path):
    return path.exists()


def _read_errors(path: epath.Path):
  return files.disk_errors(
    path, "cannot be read", advice="check the path and your access to it"
  )


def _merge(defaults: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
  """Adds the defaults of missing fields to a saved configuration.

  The parts in `_WHOLE` are taken as saved.
  """
  merged = {**defaults, **saved}
  for key, default in defaults.items():
    if isinstance(default, dict) and key in saved and key not in _WHOLE:
      merged[key] = _merge(default, saved[key])
  return merged


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(item) for item in value)
  return value


def claim(config: ConfigDict, workdir: epath.PathLike) -> None:
  """Saves the configuration, unless the work directory belongs to another.

  Raises:
    UserError: Lists the fields that differ from those of the run that the
      work directory holds.
  """
  if _exists(files.to_path(workdir) / "config.json"):
    old = _flatten(load_config(workdir).to_dict())
    new = _flatten(_tuples(config.to_dict()))
    differing = [
      f"{key}: {old.get(key)!r} in config.json, {new.get(key)!r} now"
      for key in sorted(old.keys() | new.keys())
      if old.get(key) != new.get(key) and not key.startswith(FREE_FIELDS)
    ]
    if differing:
      raise UserError(
        f"{workdir} belongs to another configuration ("
        + "; ".join(differing)
        + "); repeat that configuration, or choose another --workdir"
      )
  save_config(config, workdir)
