"""Weight files: whatever was downloaded in, flat arrays out, and our own.

Read: `.safetensors`, `.npz` and PyTorch's `.pth`, `.pt`, `.bin`, zipped or in
the format before 1.6. PyTorch files are unpickled with `weights_only`, which
executes nothing. `module.` (DataParallel) and the wrappers `{"state_dict":
...}` and `{"model": ...}` are removed.

Written: `.safetensors` or `.npz` with keys like
`params/backbone/stem/conv/kernel`.
"""

from collections.abc import Mapping
import os
import pathlib
import pickle
import re
from typing import Any
import zipfile

from flax import traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from jaxseg.errors import UserError
from jaxseg.files import atomic_write, to_path

Flat = dict[str, np.ndarray]

TORCH = (".pth", ".pt", ".bin")
COLLECTIONS = ("params", "batch_stats")
WRAPPERS = ("state_dict", "model")


def read_file(path: str | os.PathLike) -> Flat:
  """Reads a weight file as `{name: array}`, wrappers removed.

  Raises:
    UserError: no such file, a file that is not what its name says, one that
      is cut short, or a pickle that wants to execute code.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise UserError(f"{path}: no such weight file")
  readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
  readers.update(dict.fromkeys(TORCH, _read_torch))
  if path.suffix not in readers:
    raise UserError(
      f"{path}: weight files end in {', '.join(readers)}, not {path.suffix!r}"
    )
  with path.open("rb") as file:
    start = file.read(512).lstrip().lower()
  if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
    raise UserError(
      f"{path}: this is a web page, not weights; the download answered with "
      "a page (login or error), fetch the file itself"
    )
  if not start:
    raise UserError(f"{path}: the file is empty; fetch it again")
  return _without_prefix(readers[path.suffix](path))


def _without_prefix(flat: Flat) -> Flat:
  """Removes the `module.` that torch.nn.DataParallel put before every name."""
  if flat and all(name.startswith("module.") for name in flat):
    return {name.removeprefix("module."): flat[name] for name in flat}
  return flat


def _broken(path: pathlib.Path, kind: str) -> UserError:
  return UserError(
    f"{path}: not a complete {kind} file ({path.stat().st_size} bytes); "
    "it is cut short or of another kind, fetch it again"
  )


def _read_safetensors(path: pathlib.Path) -> Flat:
  try:
    return safetensors.numpy.load_file(path)
  except safetensors.SafetensorError:
    raise _broken(path, ".safetensors") from None


def _read_npz(path: pathlib.Path) -> Flat:
  try:
    with np.load(path, allow_pickle=False) as archive:
      if not isinstance(archive, np.lib.npyio.NpzFile):
        raise _broken(path, ".npz")
      return {name: archive[name] for name in archive.files}
  except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
    if "Object arrays" in str(error):
      raise UserError(
        f"{path}: holds pickled Python objects, not only arrays; not loaded"
      ) from None
    raise _broken(path, ".npz") from None


def _read_torch(path: pathlib.Path) -> Flat:
  try:
    import torch
  except ImportError:
    raise UserError(
      f"{path}: reading {path.suffix} needs PyTorch; pip install torch, or "
      "save the weights as .safetensors"
    ) from None
  try:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    # Only the name of what was refused is of use in torch's advice, which
    # is to execute the file after all.
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
      raise UserError(
        f"{path}: asks for {refused[1]}, which is no array but a pickled "
        "model, or code to execute; not loaded. Save model.state_dict()"
      ) from None
    raise _broken(path, path.suffix) from None
  except Exception:  # A damaged pickle can fail in any way at all.
    raise _broken(path, path.suffix) from None
  return _arrays(path, _unwrap(loaded))


def _unwrap(loaded: Any) -> Any:
  for key in WRAPPERS:
    if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
      loaded = loaded[key]
  return loaded


def _arrays(path: pathlib.Path, loaded: Any) -> Flat:
  import torch

  if not isinstance(loaded, Mapping) or not loaded:
    raise UserError(
      f"{path}: expected a state dict of named arrays, found "
      f"{type(loaded).__name__}; save model.state_dict()"
    )
  arrays = {}
  for name, value in loaded.items():
    if not isinstance(value, torch.Tensor):
      raise UserError(
        f"{path}: entry {name!r} is a {type(value).__name__}, not an array; "
        "save model.state_dict()"
      )
    arrays[str(name)] = as_numpy(value)
  return arrays


def as_numpy(value: Any) -> np.ndarray:
  """A NumPy array of an array or of a PyTorch tensor."""
  if hasattr(value, "detach"):
    if str(value.dtype) == "torch.bfloat16":
      value = value.float()  # NumPy has no bfloat16 of its own.
    value = value.detach().cpu().numpy()
  return np.asarray(value)


def is_converted(flat: Mapping[str, Any]) -> bool:
  """Whether these are our own keys, `params/...`."""
  return bool(flat) and all(name.split("/")[0] in COLLECTIONS for name in flat)


def flatten(variables: Mapping) -> dict[str, Any]:
  """`{"params": {"head": ...}}` -> `{"params/head/...": ...}`."""
  return traverse_util.flatten_dict(variables, sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict:
  """The inverse of `flatten`."""
  return traverse_util.unflatten_dict(flat, sep="/")


def save(path: str | os.PathLike, variables: Mapping) -> None:
  """Writes variables as `.npz` or `.safetensors`; complete or not at all.

  Raises:
    UserError: the name has another ending, or the disk is full or refuses
      the file.
  """
  path = to_path(path)
  if path.suffix not in (".npz", ".safetensors"):
    raise UserError(
      f"{path}: converted weights end in .npz or .safetensors, "
      f"not {path.suffix!r}"
    )
  flat = {
    name: np.asarray(value, order="C")
    for name, value in flatten(variables).items()
  }
  with atomic_write(path) as file:
    if path.suffix == ".npz":
      np.savez(file, **flat)
    else:
      file.write(safetensors.numpy.save(flat))


def load(path: str | os.PathLike) -> dict:
  """Reads what `save` wrote.

  Raises:
    UserError: unreadable, or weights of another framework.
  """
  flat = read_file(path)
  if not is_converted(flat):
    raise UserError(
      f"{path}: expected keys like 'params/backbone/...', found "
      f"{next(iter(flat))!r}; run `python -m jaxseg convert` on it first"
    )
  return unflatten(flat)
