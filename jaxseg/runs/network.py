"""Builds the network of a complete configuration, and traces it.

A network cannot know which values of its fields fit together for every backbone
and image size. The exceptions that wrong values raise inside it are reported as
one UserError, which names the fields that differ from the paper's.
"""

from collections.abc import Collection, Iterator
import contextlib
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxseg import models
from jaxseg.config_check import leaves, norm_settings
from jaxseg.errors import UserError, unknown_name
from jaxseg.layers.norm import NORMS, BatchNorm

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


def create_model(config: ConfigDict) -> nn.Module:
  """Builds the network of a complete configuration.

  Args:
    config: The whole configuration, with the class names of its data set.

  Raises:
    UserError: A field of the network has an invalid value.
  """
  fields = {"dtype": config.dtype, **config.model.to_dict()}
  fields["norm"] = {"name": config.norm.name, **norm_settings(config)}
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
      fit the task or the loss, or it has no norms that `config.norm` could
      change.
  """
  crop = jnp.zeros((1, *config.augment.crop, 3))
  norms = set()

  def record(call, args, kwargs, context):
    norms.update(
      kind for kind in NORMS.values() if isinstance(context.module, kind)
    )
    return call(*args, **kwargs)

  with _misfits(config), nn.intercept_methods(record):
    outputs, variables = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), crop, train=False)
    )
  _check_norms(norms, config)
  _check_outputs(outputs, config)
  return variables["params"]


def _check_norms(
  norms: Collection[type[nn.Module]], config: ConfigDict
) -> None:
  """Raises UserError if the network has no norms that the fields could change.

  Args:
    norms: Classes of the norms that the network has.
    config: The whole configuration.
  """
  given = {f"norm.{k}": v for k, v in norm_settings(config).items()}
  if config.norm.name != "paper":
    given["norm.name"] = config.norm.name
  for field, value in given.items():
    if not norms:
      raise UserError(
        f"{field}={value}: the network {config.model.name!r} with these fields "
        f"has no normalisation; leave {field} out (a VGG backbone has one with "
        "--config.model.backbone.batch_norm=True)"
      )
  if config.train.norm_batches and BatchNorm not in norms:
    raise UserError(
      f"train.norm_batches={config.train.norm_batches}: the network "
      f"{config.model.name!r} with these fields has no batch normalisation; "
      "set --config.train.norm_batches=0"
    )


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
