"""The work directory: config.json, metrics.jsonl, and the run in them.

`config.json` is the resolved configuration. A work directory belongs to it:
training continues there only while every field that changes the result is
the same, and every tool rebuilds the network from it.
"""

import json
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxseg.config import base
from jaxseg.errors import UserError

# Fields that may differ between two runs of one work directory, because the
# parameters after N steps do not depend on them.
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


def write_atomically(path: Path, text: str) -> None:
  """Writes a file whole or not at all.

  Raises:
    UserError: the file cannot be written (full disk, no permission).
  """
  temporary = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, "w") as f:
      f.write(text)
      f.flush()
      os.fsync(f.fileno())
    os.replace(temporary, path)
  except OSError as error:
    temporary.unlink(missing_ok=True)
    raise UserError(f"{path}: cannot write: {error.strerror}") from error


def flatten(config: ConfigDict) -> dict[str, Any]:
  """Fields by dotted name, tuples as lists: what config.json can hold."""
  return _flatten(json.loads(json.dumps(config.to_dict())))


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat.update(_flatten(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def save_config(config: ConfigDict, workdir: Path) -> None:
  """Writes `config.json`."""
  text = json.dumps(config.to_dict(), indent=2) + "\n"
  write_atomically(workdir / "config.json", text)


def load_config(workdir: Path) -> ConfigDict:
  """Reads `config.json`; lists become tuples again.

  Fields younger than the file have their defaults, so that runs of earlier
  versions can be read and continued.

  Raises:
    UserError: no such file, or it is not one of ours.
  """
  path = workdir / "config.json"
  try:
    tree = json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(
      f"{path}: no such file; expected a work directory written by train.py"
    ) from None
  except (OSError, json.JSONDecodeError) as error:
    raise UserError(f"{path}: not a readable config.json: {error}") from None
  return ConfigDict(_merge(base().to_dict(), _tuples(tree))).lock()


def _merge(defaults: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
  """`saved` over `defaults`; what a network's own file chose stays whole."""
  whole = ("model", "heads")
  return {
    key: _merge(value, saved[key])
    if isinstance(value, dict) and key in saved and key not in whole
    else saved.get(key, value)
    for key, value in {**saved, **defaults}.items()
  }


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(item) for item in value)
  return value


def claim(config: ConfigDict, workdir: Path) -> None:
  """Makes `workdir` this configuration's, or refuses.

  Raises:
    UserError: it belongs to another configuration; lists what differs.
  """
  if (workdir / "config.json").exists():
    old, new = flatten(load_config(workdir)), flatten(config)
    differing = [
      f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
      for key in sorted(old.keys() | new.keys())
      if old.get(key) != new.get(key) and not key.startswith(FREE_FIELDS)
    ]
    if differing:
      raise UserError(
        f"{workdir} belongs to another configuration ("
        + "; ".join(differing)
        + "); continue with that one, or choose another --workdir"
      )
  save_config(config, workdir)
