"""Starting a network from weights: what `config.init` asks for.

`init.model` fills the whole network, `init.backbone` its backbone; both take
a work directory of ours, a converted `.npz` or `.safetensors`, or one of
PyTorch's files, which is recognised by its keys. `init.skip` names paths that
stay as they were drawn.
"""

from collections.abc import Callable, Iterable, Mapping
import pathlib
from typing import Any

import flax.linen as nn
import numpy as np

from jaxseg.errors import UserError
from jaxseg.weights import files, tables
from jaxseg.weights.matching import Source, fill, skipper
from jaxseg.weights.pytorch import (
  fill_from_torch,
  put_in_backbone,
  take_backbone,
)


def initialise(
  network: nn.Module,
  variables: Mapping[str, Any],
  *,
  model: str = "",
  backbone: str = "",
  skip: Iterable[str] = (),
  source: str | None = None,
  read_workdir: Callable[[str], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
  """Replaces freshly drawn variables by those in files.

  Args:
    network: the network whose variables these are.
    variables: `{"params": ..., "batch_stats": ...}`; arrays.
    model: weights of the whole network; "" is none.
    backbone: weights of its backbone, loaded after `model`; "" is none.
    skip: regular expressions on parameter paths, such as "head".
    source: whose names a PyTorch file has; None is whoever has the network.
    read_workdir: gives the variables kept in a work directory.

  Returns:
    Variables of the same structure; what was loaded as NumPy arrays.

  Raises:
    UserError: anything that was asked for and cannot be loaded whole.
  """
  expected = files.flatten(variables)
  skipped = skipper(skip, expected)
  loaded: dict[str, np.ndarray] = {}
  for field, path in (("model", model), ("backbone", backbone)):
    if not path:
      continue
    wanted = expected
    if field == "backbone":
      wanted = put_in_backbone(take_backbone(expected))
    if not wanted:
      raise UserError(
        f"init.backbone={path}: {type(network).__name__} has no backbone of "
        "its own; use init.model, or leave the field empty"
      )
    flat = _read(path, read_workdir)
    label = f"{path} into {type(network).__name__}'s {field}"
    if files.is_converted(flat):
      filled = _from_converted(network, wanted, flat, field, label, skipped)
    else:
      filled = fill_from_torch(
        network if field == "model" else network.backbone,
        wanted,
        flat,
        source,
        label=label,
        skip=skipped,
        head=field == "model",
      )
    if not filled:
      raise UserError(
        f"init.{field}={path}: init.skip leaves nothing to load; shorten it"
      )
    loaded |= filled
  return {**variables, **files.unflatten({**expected, **loaded})}


def _read(path: str, read_workdir) -> files.Flat:
  """Flat arrays of a file, or of a work directory."""
  if not pathlib.Path(path).expanduser().is_dir():
    return files.read_file(path)
  if read_workdir is None:
    raise UserError(f"{path}: is a directory; expected a weight file")
  flat = files.flatten(read_workdir(path))
  return {name: np.asarray(value) for name, value in flat.items()}


def _from_converted(network, wanted, flat, field, label, skipped):
  """Fills `wanted` from arrays under our own paths."""
  if field == "backbone":
    # The file holds a backbone alone, or a network with one.
    flat = put_in_backbone(take_backbone(flat) or flat)
  backbone = getattr(network, "backbone", None)
  first = f"params/backbone/{tables.first_path(backbone)}/kernel"
  return fill(wanted, flat, Source, label=label, skip=skipped, first=first)
