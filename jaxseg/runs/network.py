"""Builds the network of a complete configuration, and traces it.

A network cannot know which values of its fields fit together for every backbone
and image size. The exceptions that wrong values raise inside it are reported as
one UserError, which names the fields that differ from the paper's.
"""

from collections.abc import Iterator
import contextlib
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxseg import models
from jaxseg.config_check import leaves
from jaxseg.errors import UserError, unknown_name

# Exceptions that values of fields raise inside a network, and inside JAX.
_MISFITS = (
  ArithmeticError,
  AssertionError,
  AttributeError,
  LookupError,
  TypeError,
  ValueError,
  flax.errors.FlaxError,
)

# Fields of `config.norm` that a norm has.
_NORM_FIELDS = {
  "batch": ("name", "momentum", "epsilon", "frozen"),
  "group": ("name", "epsilon"),
}


def create_model(config: ConfigDict) -> nn.Module:
  """Builds the network of a complete configuration.

  Args:
    config: The whole configuration, with the class names of its data set.

  Raises:
    UserError: A field of the network has an invalid value.
  """
  fields = {"dtype": config.dtype, **config.model.to_dict()}
  norm = config.norm.to_dict()
  if norm["name"] != "paper":
    used = _NORM_FIELDS.get(norm["name"], ("name",))
    fields["norm"] = {key: norm[key] for key in used}
  with _misfits(config):
    return models.create(
      fields.pop("name"), num_classes=len(config.data.class_names), **fields
    )


def trace(model: nn.Module, config: ConfigDict) -> dict[str, Any]:
  """Returns the shapes of the parameters, without computing anything.

  Args:
    model: The network of `create_model`.
    config: The whole configuration; it gives the size of the training crop.

  Raises:
    UserError: The network cannot be applied to a crop, or its outputs do not
      fit the task or the loss.
  """
  crop = jnp.zeros((1, *config.augment.crop, 3))
  with _misfits(config):
    outputs, variables = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), crop, train=False)
    )
  _check_outputs(outputs, config)
  return variables["params"]


def _check_outputs(outputs: dict[str, Any], config: ConfigDict) -> None:
  """Raises UserError if the outputs do not fit the task or the loss."""
  labels_pixels = outputs["logits"].ndim == 4
  fitting = "segmentation" if labels_pixels else "classification"
  if config.task != fitting:
    labels = "each pixel" if labels_pixels else "each image"
    raise UserError(
      f"task={config.task!r}: the network {config.model.name!r} predicts a "
      f"class for {labels}; expected {fitting!r}, or another configuration file"
    )
  for head in config.loss.heads:
    if head not in outputs:
      raise unknown_name("output in loss.heads", head, outputs)


@contextlib.contextmanager
def _misfits(config: ConfigDict) -> Iterator[None]:
  """Turns an exception inside the network into a UserError."""
  try:
    yield
  except _MISFITS as error:
    lines = str(error).strip().splitlines() or [""]
    reason = f"{type(error).__name__}: {lines[0]}"[:200]
    height, width = config.augment.crop
    fields = ", ".join(_unlike_the_paper(config)) or "none"
    raise UserError(
      f"the network {config.model.name!r} cannot be built for crops of "
      f"{height}x{width} ({reason}); expected fields that fit together and a "
      f"crop that is large enough; fields that differ from the paper's: "
      f"{fields}"
    ) from error


def _unlike_the_paper(config: ConfigDict) -> Iterator[str]:
  """Yields the fields of the network that differ from the paper's."""
  backbone = config.model.get("backbone")
  paper = models.fields(
    config.model.name, backbone=backbone and backbone["name"]
  )
  published = dict(leaves(ConfigDict(paper)))
  for name, value in leaves(config.model):
    if name not in published or value != published[name]:
      yield f"model.{name}={value!r}"
