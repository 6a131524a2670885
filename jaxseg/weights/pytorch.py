"""A PyTorch state dict as the variables of one of our networks.

Names come from `tables` and `segmentation`, layouts from `layouts`, and
`matching.fill` sees to it that every array finds its place. The one entry
that is ignored is `num_batches_tracked`, a counter that no network reads.
"""

from collections.abc import Callable, Iterable, Mapping
import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.weights import files, layouts, segmentation, tables
from jaxseg.weights.matching import Source, fill, skipper, without_collection

LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


def from_torch(
  model: nn.Module,
  state_dict: Mapping[str, Any],
  source: str | None = "torchvision",
  *,
  skip: Iterable[str] = (),
  in_channels: int = 3,
  label: str = "",
) -> dict:
  """Maps a state dict onto the variables of a network or a backbone.

  Args:
    model: `models.create("classifier", ...)`, a segmentation network that
      `segmentation.SOURCES` has, or a backbone alone, which leaves the file's
      classification head unread.
    state_dict: names and tensors or NumPy arrays.
    source: whose names: "torchvision", "timm" for SE networks and Xception,
      or one of `segmentation.SOURCES`; None is whoever has the network.
    skip: regular expressions on our parameter paths; what contains one is
      not in the result, such as "head" for another number of classes.
    in_channels: of the images; see `layouts.adapt_input`.
    label: what the messages say is loaded, "FILE into NETWORK".

  Returns:
    `{"params": ..., "batch_stats": ...}` as NumPy arrays.

  Raises:
    UserError: anything missing, unexpected or mis-shaped.
  """
  image = jnp.zeros((1, 224, 224, in_channels))
  variables = jax.eval_shape(
    lambda: model.init(jax.random.key(0), image, train=False)
  )
  expected = files.flatten(variables)
  alone = tables.is_backbone(model)
  named = model if _segments(model) else getattr(model, "backbone", model)
  filled = fill_from_torch(
    model,
    put_in_backbone(expected) if alone else expected,
    state_dict,
    source,
    label=label or f"state dict into {type(named).__name__}",
    skip=skipper(skip, expected),
    head=not alone,
  )
  if alone:
    filled = take_backbone(filled)
  return {"params": {}, "batch_stats": {}, **files.unflatten(filled)}


def _segments(model: nn.Module) -> bool:
  return isinstance(model, segmentation.NETWORKS)


def _table_of(
  model: nn.Module, source: str | None, names: Iterable[str]
) -> tables.Table:
  """The names of a segmentation network, a classifier or a backbone.

  Where ours is another network than theirs in spite of its weights, that is
  said in a line.
  """
  if not _segments(model):
    return tables.table_of(getattr(model, "backbone", model), source)
  source, table = segmentation.table_of(model, source, names)
  differ = segmentation.differences(model, source)
  if differ:
    print(f"note: {source}'s network has {', '.join(differ)}", flush=True)
  return table


def fill_from_torch(
  model: nn.Module,
  expected: Mapping[str, Any],
  state_dict: Mapping[str, Any],
  source: str | None,
  *,
  label: str,
  skip: Callable[[str], bool],
  head: bool,
) -> dict[str, np.ndarray]:
  """`matching.fill` from a state dict.

  Args:
    model: the network or backbone that says which names to expect.
    expected: our flat paths, the backbone's below "backbone/".
    state_dict: names and tensors or NumPy arrays.
    source: whose names.
    label: for the messages.
    skip: whether one of our paths is left out.
    head: whether the network's head is expected too.
  """
  table = _table_of(model, source, state_dict)
  arrays = {}
  for name, value in state_dict.items():
    for pattern, replacement in table.renamed:
      name = re.sub(pattern, replacement, name)
    arrays[name] = files.as_numpy(value)

  def find(path: str) -> Source | None:
    module, _, leaf = without_collection(path).rpartition("/")
    name = table.find(module)
    if name is None:
      return None
    convert = np.asarray
    if leaf == "kernel" and len(expected[path].shape) == 4:

      def convert(weight):
        return layouts.convolution(table.prepare(module, weight))

    elif leaf == "kernel":
      convert = functools.partial(
        layouts.dense, flattened=table.flattened.get(module)
      )
    return Source(f"{name}.{LEAVES[leaf]}", convert)

  def ignore(name: str) -> bool:
    counter = name.endswith(".num_batches_tracked")
    return counter or (not head and name.startswith(table.theirs))

  return fill(
    expected,
    arrays,
    find,
    label=label,
    skip=skip,
    ignore=ignore,
    first=f"params/{table.first_path}/kernel",
  )


def put_in_backbone(flat: Mapping[str, Any]) -> dict[str, Any]:
  """`params/stem/...` -> `params/backbone/stem/...`."""
  return {
    path.replace("/", "/backbone/", 1): value for path, value in flat.items()
  }


def take_backbone(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `put_in_backbone`; other paths fall out."""
  return {
    path.replace("/backbone/", "/", 1): value
    for path, value in flat.items()
    if without_collection(path).startswith("backbone/")
  }
