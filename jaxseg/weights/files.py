"""Reads any weight file as named arrays, and writes jaxseg's own files.

`read` recognises `.safetensors`, `.npz` and PyTorch's files, zipped or in the
format before PyTorch 1.6, by their content; the ending of the path is free.
PyTorch files are unpickled with `weights_only`, which executes no code.
`wrappers` removes what training scripts put around a state dict.

`save` writes `.safetensors` or `.npz` with keys such as
`params/backbone/stem/conv/kernel`. A file is written whole or not at all. With
them it stores the description of the network that the weights belong to, see
`network_fields`: under the key "jaxseg" of the metadata in `.safetensors`, as
the entry `__metadata__` in `.npz`.
"""

from collections.abc import Mapping
import dataclasses
import io
import json
import os
import pickle
import re
from typing import Any
import zipfile

from etils import epath
import numpy as np
import safetensors
import safetensors.numpy

from jaxseg.errors import UserError
from jaxseg.files import atomic_write, disk_errors, is_remote, to_path
from jaxseg.weights import paths
from jaxseg.weights.wrappers import unwrap, without_prefixes

NamedArrays = dict[str, np.ndarray]

ENDINGS = (".npz", ".safetensors")  # of the files that `save` writes
NPZ_METADATA = "__metadata__"
SAFETENSORS_METADATA = "jaxseg"


@dataclasses.dataclass(frozen=True)
class WeightFile:
  """The content of a weight file.

  Attributes:
    arrays: The names in the file and NumPy arrays.
    network: Description of the network that they belong to, as
      `network_fields.describe` returns it; None if the file has none.
  """

  arrays: NamedArrays
  network: dict[str, Any] | None = None


def read_file(path: str | os.PathLike) -> NamedArrays:
  """Reads the arrays of a weight file, see `read`."""
  return read(path).arrays


def read(path: str | os.PathLike) -> WeightFile:
  """Reads a weight file, local or on an object store.

  Args:
    path: A safetensors, NumPy (`.npz`) or PyTorch file.

  Returns:
    Its arrays without wrappers, and the description of their network. bfloat16
    arrays become float32.

  Raises:
    UserError: The file does not exist, is incomplete, is of another format, is
      a pickle that contains anything but arrays, or has an array with NaN or
      infinite values.
  """
  path = to_path(path)
  if path.is_dir():
    raise UserError(f"{path}: is a directory; expected a weight file")
  if not path.is_file():
    raise UserError(f"{path}: no such weight file")
  with _open(path) as stream:
    content = _read_stream(path, stream)
  arrays = without_prefixes(content.arrays)
  _check_finite(path, arrays)
  return dataclasses.replace(content, arrays=arrays)


def _open(path: epath.Path) -> io.BufferedIOBase:
  with disk_errors(path, "cannot be read", advice="check its permissions"):
    if is_remote(path):  # Not every object store can seek.
      return io.BytesIO(path.read_bytes())
    return open(path, "rb")


def _read_stream(path: epath.Path, stream: io.BufferedIOBase) -> WeightFile:
  """Reads a file whose format is recognised by its first bytes."""
  start = stream.read(512)
  stream.seek(0)
  if not start:
    raise UserError(f"{path}: the file is empty; download it again")
  text = start.lstrip().lower()
  if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
    raise UserError(
      f"{path}: this is a web page (a login or an error), not weights; "
      "download the file itself"
    )
  if start.startswith(b"PK"):
    return _read_zip(path, stream)
  if start.startswith(b"\x80"):  # A pickle of protocol 2 or later.
    return WeightFile(_read_torch(path, stream))
  if start[8:9] == b"{":  # The JSON header of safetensors, after its length.
    return _read_safetensors(path, stream)
  raise _broken(path, "safetensors, .npz or PyTorch")


def _broken(path: epath.Path, kind: str) -> UserError:
  return UserError(
    f"{path}: not a complete {kind} file ({path.stat().length} bytes); "
    "it is cut short or of another format, download it again"
  )


def _read_zip(path: epath.Path, stream: io.BufferedIOBase) -> WeightFile:
  """Reads a zip archive; one of PyTorch contains a pickle."""
  try:
    names = zipfile.ZipFile(stream).namelist()
  except (zipfile.BadZipFile, EOFError, ValueError):
    raise _broken(path, ".npz or PyTorch") from None
  stream.seek(0)
  if any(name.endswith("data.pkl") for name in names):
    return WeightFile(_read_torch(path, stream))
  return _read_npz(path, stream)


def _read_safetensors(
  path: epath.Path, stream: io.BufferedIOBase
) -> WeightFile:
  content = stream.read()
  try:
    arrays = safetensors.numpy.load(content)
  except safetensors.SafetensorError:
    raise _broken(path, "safetensors") from None
  header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
  text = header.get("__metadata__", {}).get(SAFETENSORS_METADATA)
  return WeightFile(_all_as_numpy(arrays), _description(path, text))


def _read_npz(path: epath.Path, stream: io.BufferedIOBase) -> WeightFile:
  try:
    with np.load(stream, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
    if "Object arrays" in str(error):
      raise UserError(
        f"{path}: contains pickled Python objects; only arrays are loaded"
      ) from None
    raise _broken(path, ".npz") from None
  text = arrays.pop(NPZ_METADATA, None)
  return WeightFile(arrays, _description(path, text))


def _description(path: epath.Path, text: Any) -> dict[str, Any] | None:
  """Parses the description of a network, None if there is none."""
  if text is None:
    return None
  try:
    network = json.loads(str(text))["network"]
  except (json.JSONDecodeError, KeyError, TypeError):
    network = None
  if not isinstance(network, dict):
    raise UserError(
      f"{path}: the fields of its network cannot be read; convert the original "
      "file again with `jaxseg convert`"
    )
  return network


def _read_torch(path: epath.Path, stream: io.BufferedIOBase) -> NamedArrays:
  try:
    import torch
  except ImportError:
    raise UserError(
      f"{path}: reading a PyTorch file needs PyTorch; pip install torch, or "
      "save the weights as .safetensors"
    ) from None
  try:
    loaded = torch.load(stream, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    # torch's message advises to execute the file. Only the name of the refused
    # object is useful.
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
      raise UserError(
        f"{path}: not loaded; it needs {refused[1]}, which is a pickled model "
        "or code to execute. Save model.state_dict() instead"
      ) from None
    raise _broken(path, "PyTorch") from None
  except Exception:  # A damaged pickle can raise any exception.
    raise _broken(path, "PyTorch") from None
  return _all_as_numpy(unwrap(path, loaded))


def _all_as_numpy(arrays: Mapping[str, Any]) -> NamedArrays:
  return {str(name): as_numpy(value) for name, value in arrays.items()}


def as_numpy(value: Any) -> np.ndarray:
  """Converts an array or a PyTorch tensor to a NumPy array.

  bfloat16, which NumPy itself lacks, becomes float32.
  """
  if hasattr(value, "detach"):
    if str(value.dtype) == "torch.bfloat16":
      value = value.float()
    value = value.detach().cpu().numpy()
  value = np.asarray(value)
  return value.astype(np.float32) if value.dtype.name == "bfloat16" else value


def _check_finite(path: epath.Path, arrays: NamedArrays) -> None:
  """Raises UserError if an array has values that are NaN or infinite."""
  bad = sorted(
    name
    for name, value in arrays.items()
    if value.dtype.kind in "fc" and not np.isfinite(value).all()
  )
  if bad:
    value = arrays[bad[0]]
    count = value.size - np.count_nonzero(np.isfinite(value))
    raise UserError(
      f"{path}: {count} of the {value.size} values of {bad[0]!r} are NaN or "
      f"infinite ({len(bad)} of {len(arrays)} arrays have such values); the "
      "training that wrote the file diverged, or the file is damaged: use "
      "another one"
    )


def check_target(path: str | os.PathLike) -> epath.Path:
  """Returns the path of a weight file that `save` can write.

  Raises:
    UserError: The path has another ending, is a directory, or is below a file.
  """
  path = to_path(path)
  if not is_remote(path) and path.is_dir():
    raise UserError(
      f"{path}: is a directory; expected the path of the file to write, such "
      f"as {path / f'weights{ENDINGS[0]}'}"
    )
  if path.suffix not in ENDINGS:
    raise UserError(
      f"{path}: expected a path ending in {' or '.join(ENDINGS)}, "
      f"found {path.suffix!r}"
    )
  if is_remote(path):
    return path
  for parent in path.parents:
    if parent.exists() and not parent.is_dir():
      raise UserError(
        f"{path}: {parent} is a file, so it cannot contain another; choose "
        "another path"
      )
  return path


def save(
  path: str | os.PathLike,
  variables: Mapping,
  network: Mapping[str, Any] | None = None,
) -> None:
  """Writes variables to a file, completely or not at all.

  Args:
    path: A `.npz` or `.safetensors` file.
    variables: `{"params": ..., "batch_stats": ...}`, nested dicts of arrays.
    network: Description of the network that the variables belong to, from
      `network_fields.describe`. `initialise` compares it with the network that
      the file is loaded into. None stores no description.

  Raises:
    UserError: The path has another ending, cannot be a file, or the disk is
      full or refuses the file.
  """
  path = check_target(path)
  flat = {
    name: np.asarray(value, order="C")
    for name, value in paths.flatten(variables).items()
  }
  text = None if network is None else json.dumps({"network": dict(network)})
  with atomic_write(path) as file:
    if path.suffix == ".npz":
      metadata = {} if text is None else {NPZ_METADATA: np.asarray(text)}
      np.savez(file, **flat, **metadata)
    else:
      metadata = None if text is None else {SAFETENSORS_METADATA: text}
      file.write(safetensors.numpy.save(flat, metadata=metadata))


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
