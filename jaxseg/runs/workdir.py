"""The configuration and the data that a work directory belongs to.

`config.json` holds the resolved configuration of a run, from which every
command rebuilds the network. `data.json` describes the files that it trains
on. Training continues in a work directory only if all fields that change the
result, and the files, are the same.
"""

from collections.abc import Iterator, Sequence
import json
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxseg import files
from jaxseg.config import base
from jaxseg.data import contents
from jaxseg.data.contents import Contents
from jaxseg.data.notes import note
from jaxseg.errors import UserError
from jaxseg.runs.checkpoints import saved_steps

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

# Sections without which no network can be rebuilt.
_REQUIRED = ("data", "model")


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

  A relative `data.path` is written as an absolute path, so that other commands
  find the data from any folder.

  Raises:
    UserError: The disk is full or refuses the file.
  """
  tree = config.to_dict()
  path = tree["data"]["path"]
  if path and not files.is_remote(path):
    tree["data"]["path"] = str(Path(path).expanduser().absolute())
  text = json.dumps(tree, indent=2) + "\n"
  files.write_text(files.to_path(workdir) / "config.json", text)


def load_config(workdir: epath.PathLike) -> ConfigDict:
  """Reads `config.json` and turns its lists into tuples.

  Fields that are missing because an earlier version of jaxseg wrote the file
  get their default values, so that its run can be read and continued.

  Raises:
    UserError: The file does not exist, cannot be read, is not valid JSON, or
      holds something else than a configuration.
  """
  path = files.to_path(workdir) / "config.json"
  if not _exists(path):
    raise UserError(
      f"{path}: no such file; expected a work directory written by train.py"
    )
  with _read_errors(path):
    content = path.read_bytes()
  try:
    tree = json.loads(content)
  except ValueError as error:
    raise _config_error(path, f"not JSON: {error}") from error
  defaults = base().to_dict()
  for section in _sections(defaults):
    if not _is_section(tree, section):
      where = f"the section {'.'.join(section)!r}" if section else "the file"
      raise _config_error(path, f"{where} is no JSON object")
  for section in _REQUIRED:
    if section not in tree:
      raise _config_error(path, f"the section {section!r} is missing")
  if not isinstance(tree["model"].get("name"), str):
    raise _config_error(path, "model.name is missing")
  tree = _tuples(tree)
  if "norm" in tree and "groups" not in tree["norm"]:
    tree["norm"] = _without_unused(tree["norm"])
  return ConfigDict(_merge(defaults, tree)).lock()


def _without_unused(norm: dict[str, Any]) -> dict[str, Any]:
  """Returns `config.norm` of a version of jaxseg in which every field was set.

  That version ignored the fields that `norm.name` did not use.
  """
  name = norm.get("name", "paper")
  used = {"batch": ("momentum", "epsilon", "frozen"), "group": ("epsilon",)}
  fields = ("name", *used.get(str(name), ()))
  return {field: norm[field] for field in fields if field in norm}


def _config_error(path: epath.Path, problem: str) -> UserError:
  return UserError(
    f"{path}: not a readable config.json: {problem}; restore the file from a "
    "copy, or choose another --workdir"
  )


def _sections(
  defaults: dict[str, Any], name: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
  """Yields the path of each section of a configuration, outer ones first."""
  yield name
  for key, value in defaults.items():
    if isinstance(value, dict):
      yield from _sections(value, (*name, key))


def _is_section(tree: Any, name: tuple[str, ...]) -> bool:
  """Returns whether a section is absent or a dict; outer ones are dicts."""
  for key in name:
    if key not in tree:
      return True
    tree = tree[key]
  return isinstance(tree, dict)


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
      work directory holds, or says that its config.json is lost.
  """
  workdir = files.to_path(workdir)
  for name in ("checkpoints", "pictures"):
    check_folder(workdir / name)
  if _exists(workdir / "config.json"):
    _check_same(config, workdir)
  elif steps := saved_steps(workdir / "checkpoints"):
    raise UserError(
      f"{workdir}: there are checkpoints (steps {steps}) but no config.json, "
      "so that their configuration is unknown; restore config.json from a "
      "copy, or choose another --workdir"
    )
  save_config(config, workdir)


def _check_same(config: ConfigDict, workdir: epath.Path) -> None:
  """Raises UserError if `config.json` gives another result than `config`."""
  old = _flatten(load_config(workdir).to_dict())
  new = _flatten(_tuples(config.to_dict()))
  differing = [
    f"{key}: {old.get(key)!r} in config.json, {new.get(key)!r} now"
    for key in sorted(old.keys() | new.keys())
    if not _equal(old.get(key), new.get(key))
    and not key.startswith(FREE_FIELDS)
  ]
  if differing:
    raise UserError(
      f"{workdir} belongs to another configuration ("
      + "; ".join(differing)
      + "); repeat that configuration, or choose another --workdir"
    )


def _equal(a: Any, b: Any) -> bool:
  """Returns whether two values are equal; NaN equals itself here."""
  return a == b or repr(a) == repr(b)


def claim_data(
  dataset_contents: Contents, splits: Sequence[str], workdir: epath.PathLike
) -> None:
  """Saves the description of the data, unless a run used other data.

  Args:
    dataset_contents: Description of each split of the data set.
    splits: Splits that the run uses.
    workdir: The work directory.

  Raises:
    UserError: The files of a split changed since the run started.
  """
  path = files.to_path(workdir) / "data.json"
  known: Contents = {}
  if _exists(path):
    with _read_errors(path):
      content = path.read_bytes()
    try:
      known = {name: dict(split) for name, split in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError):
      note(f"{path} is damaged and was replaced")
  for split in splits:
    if found := contents.difference(known, dataset_contents, split):
      raise UserError(
        f"{workdir}: {found} since the run started; restore the files, choose "
        f"another --workdir, or delete {path} to continue on the changed data"
      )
  text = json.dumps({**known, **dataset_contents}, indent=2) + "\n"
  files.write_text(path, text)


def check_folder(path: epath.Path) -> None:
  """Checks that a folder of a work directory exists or can be created.

  Raises:
    UserError: The path, or a folder above it, is a file.
  """
  if files.is_remote(path):
    return
  for part in (path, *path.parents):
    if _is_file(part):
      raise UserError(
        f"{part} is a file; expected a folder: choose another --workdir, or "
        "move the file away"
      )


def _is_file(path: epath.Path) -> bool:
  with _read_errors(path):
    return path.exists() and not path.is_dir()
