"""Converts PyTorch state dicts into the variables of networks.

`classification` and `segmentation` hold the libraries' names, `layouts` the
order of axes, and `matching.fill` ensures that every array is used. The only
entry that is ignored is `num_batches_tracked`, a counter that no network reads.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.weights import (
  classification,
  files,
  network_fields,
  paths,
  report,
  segmentation,
)
from jaxseg.weights.matching import Entry, fill, skip_predicate
from jaxseg.weights.name_table import NameTable

# Names of arrays in jaxseg -> names in PyTorch.
TORCH_NAMES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


def from_torch(
  model: nn.Module,
  state_dict: Mapping[str, Any],
  library: str | None = None,
  *,
  skip: Iterable[str] = (),
  in_channels: int = 3,
  label: str = "",
  skip_option: str = report.SKIP_ARGUMENT,
) -> dict:
  """Converts a PyTorch state dict into the variables of a network.

  Args:
    model: A classification network (`models.create("classifier", ...)`), a
      segmentation network in `segmentation.NETWORKS`, or a backbone. For a
      backbone, the classification head in `state_dict` is ignored.
    state_dict: Names and tensors or NumPy arrays, e.g. from `read_file`.
    library: The library whose names `state_dict` has: "torchvision", "timm"
      for squeeze-and-excitation networks and Xception, or a key of
      `segmentation.LIBRARIES`. None recognises the library of a segmentation
      network by the names, and takes the first library that has a
      classification network.
    skip: Regular expressions. Parameters whose path contains a match are
      left out of the result, e.g. "head" for another number of classes.
    in_channels: Number of channels of the images. If it is not 3, the first
      kernel is adapted, see `layouts.adapt_input_channels`.
    label: "FILE into NETWORK", the beginning of every message.
    skip_option: How the user gives a pattern of `skip`, which stands for {}.

  Returns:
    `{"params": ..., "batch_stats": ...}`, nested dicts of NumPy arrays with
    the shapes and dtypes of `model.init` on images `[n, h, w, in_channels]`.

  Raises:
    UserError: Arrays are missing, unexpected or mis-shaped, or the library
      does not have this network.
  """
  library = choose_library(model, library, state_dict)
  image = jnp.zeros((1, 224, 224, in_channels))
  variables = jax.eval_shape(
    lambda: model.init(jax.random.key(0), image, train=False)
  )
  expected = paths.flatten(variables)
  matches_skip = skip_predicate(skip, expected, skip_option)
  label = label or f"state dict into {type(_named_module(model)).__name__}"
  is_backbone = classification.is_backbone(model)

  def is_skipped(path: str) -> bool:
    if is_backbone:
      path = path.replace("/backbone/", "/", 1)
    return matches_skip(path)

  differences = network_fields.differences(
    model, describe_original(model, library)
  )
  if differences:
    listed = network_fields.listed(differences)
    print(f"note: {library}'s network has {listed}", flush=True)
  filled = fill_from_torch(
    model,
    paths.put_in_backbone(expected) if is_backbone else expected,
    state_dict,
    library,
    label=label,
    is_skipped=is_skipped,
    with_head=not is_backbone,
    skip_option=skip_option,
  )
  if is_backbone:
    filled = paths.take_backbone(filled)
  return {"params": {}, "batch_stats": {}, **paths.unflatten(filled)}


def _named_module(model: nn.Module) -> nn.Module:
  """Returns the module whose class has names in a library.

  This is the backbone of a classification network, and the module itself
  otherwise.
  """
  if isinstance(model, segmentation.NETWORKS):
    return model
  return getattr(model, "backbone", model)


def choose_library(
  model: nn.Module, library: str | None, names: Iterable[str]
) -> str:
  """Returns the library that a state dict comes from.

  Args:
    model: As in `from_torch`.
    library: As in `from_torch`.
    names: Names of the arrays in the state dict.

  Raises:
    UserError: The library is unknown or does not have this network.
  """
  if isinstance(model, segmentation.NETWORKS):
    return segmentation.choose_library(model, library, names)
  return classification.choose_library(_named_module(model), library)


def describe_original(
  model: nn.Module, library: str
) -> network_fields.Description:
  """Describes the network of a library that has the same weights as `model`."""
  if isinstance(model, segmentation.NETWORKS):
    return segmentation.describe_original(model, library)
  backbone = _named_module(model)
  original = classification.describe_original(backbone)
  if backbone is model:
    return original
  return {**network_fields.describe(model), "backbone": original}


def _name_table(model: nn.Module, library: str) -> NameTable:
  """Returns a library's names for a network or a backbone."""
  if isinstance(model, segmentation.NETWORKS):
    return segmentation.name_table(model, library)
  return classification.name_table(_named_module(model), library)


def fill_from_torch(
  model: nn.Module,
  expected: Mapping[str, Any],
  state_dict: Mapping[str, Any],
  library: str,
  *,
  label: str,
  is_skipped: Callable[[str], bool],
  with_head: bool,
  skip_option: str,
) -> dict[str, np.ndarray]:
  """Calls `matching.fill` with the arrays of a PyTorch state dict.

  Args:
    model: The network or backbone that the state dict belongs to.
    expected: Paths of the variables, those of the backbone below "backbone/",
      and arrays or anything else with a shape and a dtype.
    state_dict: Names and tensors or NumPy arrays.
    library: The library whose names `state_dict` has, from `choose_library`.
    label: "FILE into NETWORK", the beginning of every message.
    is_skipped: Function that returns whether a path is left out.
    with_head: Whether `expected` includes the head. If not, the head in
      `state_dict` is ignored.
    skip_option: As in `from_torch`.

  Returns:
    Paths, and NumPy arrays of the expected shapes and dtypes.

  Raises:
    UserError: As in `from_torch`.
  """
  table = _name_table(model, library)
  arrays = {
    table.current_name(name): files.as_numpy(value)
    for name, value in state_dict.items()
  }

  def find_entry(path: str) -> Entry | None:
    module, _, leaf = paths.without_collection(path).rpartition("/")
    name = table.find(module)
    if name is None:
      return None
    convert = np.asarray
    if leaf == "kernel":
      convert = table.kernel_conversion(module, len(expected[path].shape))
    return Entry(f"{name}.{TORCH_NAMES[leaf]}", convert)

  def may_remain(name: str) -> bool:
    if name.endswith(".num_batches_tracked"):
      return True
    return not with_head and name.startswith(table.head_prefixes)

  return fill(
    expected,
    arrays,
    find_entry,
    label=label,
    is_skipped=is_skipped,
    may_remain=may_remain,
    input_kernel=table.input_kernel,
    skip_option=skip_option,
  )
