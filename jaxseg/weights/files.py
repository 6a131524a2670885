"""Reads any weight file as named arrays, and writes jaxseg's own files.

`read_file` reads `.safetensors`, `.npz` and PyTorch's `.pth`, `.pt` and `.bin`,
zipped or in the format before PyTorch 1.6. PyTorch files are unpickled with
`weights_only`, which executes no code. The prefix `module.` of DataParallel and
the wrappers `{"state_dict": ...}` and `{"model": ...}` are removed.

`save` writes `.safetensors` or `.npz` with keys such as
`params/backbone/stem/conv/kernel`. A file is written whole or not at all.
"""

from collections.abc import Mapping
import os
import pathlib
import pickle
import re
from typing import Any
import zipfile

import numpy as np
import safetensors
import safetensors.numpy

from jaxseg.errors import UserError
from jaxseg.files import atomic_write, to_path
from jaxseg.weights import paths

NamedArrays = dict[str, np.ndarray]

TORCH_ENDINGS = (".pth", ".pt", ".bin")
WRAPPERS = ("state_dict", "model")


def read_file(path: str | os.PathLike) -> NamedArrays:
  """Reads a weight file as `{name: array}`, without wrappers.

  Args:
    path: A `.safetensors`, `.npz`, `.pth`, `.pt` or `.bin` file.

  Returns:
    The names in the file and NumPy arrays. bfloat16 tensors of PyTorch become
    float32.

  Raises:
    UserError: The file does not exist, is incomplete, is not of the kind that
      its ending says, or is a pickle that contains anything but arrays.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise UserError(f"{path}: no such weight file")
  readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
  readers.update(dict.fromkeys(TORCH_ENDINGS, _read_torch))
  if path.suffix not in readers:
    raise UserError(
      f"{path}: expected a weight file ending in {', '.join(readers)}, "
      f"found {path.suffix!r}"
    )
  with path.open("rb") as file:
    start = file.read(512).lstrip().lower()
  if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
    raise UserError(
      f"{path}: this is a web page (a login or an error), not weights; "
      "download the file itself"
    )
  if not start:
    raise UserError(f"{path}: the file is empty; download it again")
  return _without_prefix(readers[path.suffix](path))


def _without_prefix(flat: NamedArrays) -> NamedArrays:
  """Removes the prefix `module.` that torch.nn.DataParallel gives all names."""
  if flat and all(name.startswith("module.") for name in flat):
    return {name.removeprefix("module."): flat[name] for name in flat}
  return flat


def _broken(path: pathlib.Path, kind: str) -> UserError:
  return UserError(
    f"{path}: not a complete {kind} file ({path.stat().st_size} bytes); "
    "it is cut short or of another format, download it again"
  )


def _read_safetensors(path: pathlib.Path) -> NamedArrays:
  try:
    return safetensors.numpy.load_file(path)
  except safetensors.SafetensorError:
    raise _broken(path, ".safetensors") from None


def _read_npz(path: pathlib.Path) -> NamedArrays:
  try:
    with np.load(path, allow_pickle=False) as archive:
      if not isinstance(archive, np.lib.npyio.NpzFile):
        raise _broken(path, ".npz")
      return {name: archive[name] for name in archive.files}
  except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
    if "Object arrays" in str(error):
      raise UserError(
        f"{path}: contains pickled Python objects; only arrays are loaded"
      ) from None
    raise _broken(path, ".npz") from None


def _read_torch(path: pathlib.Path) -> NamedArrays:
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
    # torch's message advises to execute the file. Only the name of the refused
    # object is useful.
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
      raise UserError(
        f"{path}: not loaded; it needs {refused[1]}, which is a pickled model "
        "or code to execute. Save model.state_dict() instead"
      ) from None
    raise _broken(path, path.suffix) from None
  except Exception:  # A damaged pickle can raise any exception.
    raise _broken(path, path.suffix) from None
  return _arrays(path, _unwrap(loaded))


def _unwrap(loaded: Any) -> Any:
  for key in WRAPPERS:
    if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
      loaded = loaded[key]
  return loaded


def _arrays(path: pathlib.Path, loaded: Any) -> NamedArrays:
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
  """Converts an array or a PyTorch tensor to a NumPy array."""
  if hasattr(value, "detach"):
    if str(value.dtype) == "torch.bfloat16":
      value = value.float()  # NumPy has no bfloat16.
    value = value.detach().cpu().numpy()
  return np.asarray(value)


def save(path: str | os.PathLike, variables: Mapping) -> None:
  """Writes variables to a file, completely or not at all.

  Args:
    path: A `.npz` or `.safetensors` file.
    variables: `{"params": ..., "batch_stats": ...}`, nested dicts of arrays.

  Raises:
    UserError: The path has another ending, or the disk is full or refuses
      the file.
  """
  path = to_path(path)
  if path.suffix not in (".npz", ".safetensors"):
    raise UserError(
      f"{path}: expected a path ending in .npz or .safetensors, "
      f"found {path.suffix!r}"
    )
  flat = {
    name: np.asarray(value, order="C")
    for name, value in paths.flatten(variables).items()
  }
  with atomic_write(path) as file:
    if path.suffix == ".npz":
      np.savez(file, **flat)
    else:
      file.write(safetensors.numpy.save(flat))


def load(path: str | os.PathLike) -> dict:
  """Reads variables that `save` wrote.

  Args:
    path: A `.npz` or `.safetensors` file.

  Returns:
    `{"params": ..., "batch_stats": ...}`, nested dicts of NumPy arrays.

  Raises:
    UserError: The file cannot be read, or has the names of another framework.
  """
  flat = read_file(path)
  if not paths.are_paths(flat):
    raise UserError(
      f"{path}: expected keys such as 'params/backbone/...', found "
      f"{next(iter(flat), None)!r}; convert it with `jaxseg convert` first"
    )
  return paths.unflatten(flat)
