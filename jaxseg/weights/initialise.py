"""Replaces fresh variables by those of files, as `config.init` asks.

`init.model` fills the whole network and `init.backbone` its backbone. Each is
a work directory, a converted `.npz` or `.safetensors` file, or a PyTorch file,
which is recognised by its names. `init.skip` names the parameters that keep
their fresh values.

The fields of the network are compared with those of the network that a file
was made for, see `field_check`.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
from typing import Any

import flax.linen as nn
import numpy as np

from jaxseg.errors import UserError
from jaxseg.files import to_path
from jaxseg.weights import classification, field_check, files, paths, pytorch
from jaxseg.weights.files import WeightFile
from jaxseg.weights.matching import Entry, fill, skip_predicate
from jaxseg.weights.report import SKIP_FIELD

ReadWorkdir = Callable[[str], Mapping[str, Any]]


def initialise(
  network: nn.Module,
  variables: Mapping[str, Any],
  *,
  model: str = "",
  backbone: str = "",
  skip: Iterable[str] = (),
  changed: Iterable[str] = (),
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
    changed: Fields of the network, such as "rates", that may differ from those
      of the network that a file was made for.
    read_workdir: Function that returns the variables of a work directory.

  Returns:
    Variables of the same structure and shapes. Loaded arrays are NumPy
    arrays.

  Raises:
    UserError: A file cannot be read or does not match the network, or `skip`
      leaves nothing to load.
  """
  fresh = paths.flatten(variables)
  is_skipped = skip_predicate(skip, fresh, SKIP_FIELD)
  field_check.check_names(network, changed)
  loaded: dict[str, np.ndarray] = {}
  if model:
    source = _Source(
      f"init.model={model}",
      f"{model} into {type(network).__name__}",
      _read(model, read_workdir),
      is_skipped,
      tuple(changed),
    )
    loaded |= _fill_model(network, fresh, source)
  if backbone:
    expected = paths.put_in_backbone(paths.take_backbone(fresh))
    if not expected:
      raise UserError(
        f"init.backbone={backbone}: {type(network).__name__} has no backbone; "
        "use init.model, or leave the field empty"
      )
    source = _Source(
      f"init.backbone={backbone}",
      f"{backbone} into the backbone of {type(network).__name__}",
      _read(backbone, read_workdir),
      is_skipped,
      tuple(changed),
    )
    loaded |= _fill_backbone(network, expected, source)
  return {**variables, **paths.unflatten({**fresh, **loaded})}


@dataclasses.dataclass(frozen=True)
class _Source:
  """The weights that one field of `config.init` names.

  Attributes:
    option: The field and its value.
    label: "FILE into NETWORK", the beginning of messages about arrays.
    file: The content of the file or work directory.
    is_skipped: Function that returns whether a path is left out.
    changed: Fields of the network that may differ from the file's.
  """

  option: str
  label: str
  file: WeightFile
  is_skipped: Callable[[str], bool]
  changed: tuple[str, ...]


def _read(path: str, read_workdir: ReadWorkdir | None) -> WeightFile:
  """Reads a file, or the variables of a work directory."""
  if read_workdir is None or not to_path(path).is_dir():
    return files.read(path)
  flat = paths.flatten(read_workdir(path))
  return WeightFile({name: np.asarray(value) for name, value in flat.items()})


def _fill_model(network, expected, source):
  """Fills all variables of a network."""
  library, original = None, source.file.network
  if not paths.are_paths(source.file.arrays):
    library = pytorch.choose_library(network, None, source.file.arrays)
    original = pytorch.describe_original(network, library)
  if original is not None:
    field_check.check_model(network, original, source.option, source.changed)
  return _fill(network, network, expected, source, library, with_head=True)


def _fill_backbone(network, expected, source):
  """Fills the variables below "backbone/"."""
  library, original = None, source.file.network
  arrays = source.file.arrays
  if paths.are_paths(arrays):
    # The file holds a network with a backbone, or a backbone alone.
    arrays = paths.put_in_backbone(paths.take_backbone(arrays) or arrays)
    original = (original or {}).get("backbone", original)
  else:
    library = pytorch.choose_library(network.backbone, None, arrays)
    original = pytorch.describe_original(network.backbone, library)
  if original is not None:
    field_check.check_backbone(
      network.backbone, original, source.option, source.changed
    )
  file = dataclasses.replace(source.file, arrays=arrays)
  source = dataclasses.replace(source, file=file)
  return _fill(
    network, network.backbone, expected, source, library, with_head=False
  )


def _fill(network, module, expected, source, library, *, with_head):
  """Fills variables by the names of a library, or by jaxseg's paths.

  Args:
    network: The whole network.
    module: The part of it that `library` has names for.
    expected: Paths and arrays of the variables.
    source: The weights.
    library: The library whose names the file has; None for jaxseg's paths.
    with_head: Whether the file's head is loaded as well.
  """
  if library is None:
    filled = fill(
      expected,
      source.file.arrays,
      Entry,
      label=source.label,
      is_skipped=source.is_skipped,
      input_kernel=_input_kernel(network),
      skip_option=SKIP_FIELD,
    )
  else:
    filled = pytorch.fill_from_torch(
      module,
      expected,
      source.file.arrays,
      library,
      label=source.label,
      is_skipped=source.is_skipped,
      with_head=with_head,
      skip_option=SKIP_FIELD,
    )
  if not filled:
    raise UserError(
      f"{source.option}: init.skip leaves nothing to load; shorten it"
    )
  return filled


def _input_kernel(network: nn.Module) -> str:
  """Returns the path of the kernel that reads the image, "" if unknown."""
  backbone = getattr(network, "backbone", None)
  if classification.is_backbone(backbone):
    return classification.name_table(backbone).input_kernel
  return ""
