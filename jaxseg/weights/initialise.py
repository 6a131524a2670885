"""Replaces fresh variables by those of files, as `config.init` asks.

`init.model` fills the whole network and `init.backbone` its backbone. Each is
a work directory, a converted `.npz` or `.safetensors` file, or a PyTorch file,
which is recognised by its names. `init.skip` names the
parameters that keep their fresh values.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from jaxseg.errors import UserError
from jaxseg.files import to_path
from jaxseg.weights import classification, files, paths
from jaxseg.weights.matching import Entry, fill, skip_predicate
from jaxseg.weights.pytorch import fill_from_torch

ReadWorkdir = Callable[[str], Mapping[str, Any]]


def initialise(
  network: nn.Module,
  variables: Mapping[str, Any],
  *,
  model: str = "",
  backbone: str = "",
  skip: Iterable[str] = (),
  read_workdir: ReadWorkdir | None = None,
) -> dict[str, Any]:
  """Replaces fresh variables by those of files.

  Args:
    network: The network that the variables belong to.
    variables: `{"params": ..., "batch_stats": ...}`, nested dicts of arrays.
    model: Weights of the whole network, a file or a work directory. "" loads
      nothing.
    backbone: Weights of the backbone, loaded after `model`. "" loads nothing.
    skip: Regular expressions. Parameters whose path contains a match keep
      their fresh values, e.g. "head".
    read_workdir: Function that returns the variables of a work directory.

  Returns:
    Variables of the same structure and shapes. Loaded arrays are NumPy
    arrays.

  Raises:
    UserError: A file cannot be read or does not match the network, or `skip`
      leaves nothing to load.
  """
  fresh = paths.flatten(variables)
  is_skipped = skip_predicate(skip, fresh)
  loaded: dict[str, np.ndarray] = {}
  if model:
    arrays = _read_arrays(model, read_workdir)
    label = f"{model} into {type(network).__name__}"
    filled = _fill_model(network, fresh, arrays, label, is_skipped)
    loaded |= _not_empty(filled, f"init.model={model}")
  if backbone:
    expected = paths.put_in_backbone(paths.take_backbone(fresh))
    if not expected:
      raise UserError(
        f"init.backbone={backbone}: {type(network).__name__} has no backbone; "
        "use init.model, or leave the field empty"
      )
    arrays = _read_arrays(backbone, read_workdir)
    label = f"{backbone} into the backbone of {type(network).__name__}"
    filled = _fill_backbone(network, expected, arrays, label, is_skipped)
    loaded |= _not_empty(filled, f"init.backbone={backbone}")
  return {**variables, **paths.unflatten({**fresh, **loaded})}


def _read_arrays(
  path: str, read_workdir: ReadWorkdir | None
) -> files.NamedArrays:
  """Reads the named arrays of a file or of a work directory."""
  if read_workdir is None or not to_path(path).is_dir():
    return files.read_file(path)
  flat = paths.flatten(read_workdir(path))
  return {name: np.asarray(value) for name, value in flat.items()}


def _fill_model(network, expected, arrays, label, is_skipped):
  """Fills all variables of a network."""
  if paths.are_paths(arrays):
    return _fill_from_ours(network, expected, arrays, label, is_skipped)
  return fill_from_torch(
    network,
    expected,
    arrays,
    None,
    label=label,
    is_skipped=is_skipped,
    with_head=True,
  )


def _fill_backbone(network, expected, arrays, label, is_skipped):
  """Fills the variables below "backbone/"."""
  if paths.are_paths(arrays):
    # The file holds a network with a backbone, or a backbone alone.
    arrays = paths.put_in_backbone(paths.take_backbone(arrays) or arrays)
    return _fill_from_ours(network, expected, arrays, label, is_skipped)
  return fill_from_torch(
    network.backbone,
    expected,
    arrays,
    None,
    label=label,
    is_skipped=is_skipped,
    with_head=False,
  )


def _fill_from_ours(network, expected, arrays, label, is_skipped):
  """Fills variables from arrays that are named by paths of variables."""
  backbone = getattr(network, "backbone", None)
  input_kernel = ""
  if classification.is_backbone(backbone):
    input_kernel = classification.name_table(backbone).input_kernel
  return fill(
    expected,
    arrays,
    Entry,
    label=label,
    is_skipped=is_skipped,
    input_kernel=input_kernel,
  )


def _not_empty(filled: dict, field: str) -> dict:
  if not filled:
    raise UserError(f"{field}: init.skip leaves nothing to load; shorten it")
  return filled
