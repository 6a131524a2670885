"""Finds the fields in which a network differs from a library's.

The weights of a library fit any network with parameters of the same shapes.
Other fields, such as dilations or `align_corners`, change the outputs all the
same.
"""

from typing import Any

import flax.linen as nn

from jaxseg import models
from jaxseg.backbones.resnet import Bottleneck, ResNet
from jaxseg.backbones.vgg import VGG
from jaxseg.models.unet import UNet
from jaxseg.weights.segmentation.libraries import FIELDS

# Fields that do not change the outputs of a trained network.
_TRAINING_ONLY = {
  "dropout_rate", "dropout_levels", "dropout_stages", "channel_dropout",
  "kernel_init", "initialiser", "dtype", "param_dtype",
}  # fmt: skip
# Fields whose value follows from the shapes of the weights.
_FIXED_BY_SHAPES = {
  "num_classes", "features", "up_features", "low_level_features",
  "decoder_features", "head_features", "aux_features", "cascade_blocks",
  "final_conv", "auxiliary", "centre", "stage_sizes", "block", "width",
  "groups", "width_per_group", "batch_norm", "modulated", "offset_groups",
}  # fmt: skip
# Modules, whose own fields are compared, and fields of Flax.
_MODULES = {"parent", "name", "backbone", "norm"}


def differences(network: nn.Module, library: str) -> list[str]:
  """Returns the fields whose values change the outputs for the same weights.

  Args:
    network: An instance of one of `NETWORKS`.
    library: A library that has this network.

  Returns:
    One "FIELD=LIBRARY'S VALUE (VALUE here)" for each such field.
  """
  reference = _library_network(network, library)
  pairs = [(network, reference, "")]
  if hasattr(network, "backbone"):
    pairs.append((network.backbone, reference.backbone, "backbone."))
  return [
    f"{prefix}{field}={_format(theirs)} ({_format(ours)} here)"
    for module, original, prefix in pairs
    for field, ours, theirs in _compared_fields(module, original)
    if ours != theirs
  ]


def _library_network(network: nn.Module, library: str) -> nn.Module:
  """Builds the library's network, on a backbone of the same family."""
  name, fields = next(
    (name, fields)
    for name, fields in FIELDS[library].items()
    if models.MODELS[name] is type(network)
  )
  fields = dict(fields)
  if hasattr(network, "backbone"):
    family = "vgg11" if isinstance(network.backbone, VGG) else "resnet50"
    fields["backbone"] = {"name": family, **fields.get("backbone", {})}
  return models.create(name, num_classes=1, **fields)


def _compared_fields(
  ours: nn.Module, theirs: nn.Module
) -> list[tuple[str, Any, Any]]:
  """Returns (field, value, library's value) of fields that change outputs."""
  ignored = _fields_without_effect(ours) | _TRAINING_ONLY | _FIXED_BY_SHAPES
  # The output stride of a dilated network is free, because the dilations
  # follow it.
  if getattr(theirs, "output_stride", 32) < 32:
    ignored.add("output_stride")
  fields = [
    (field, getattr(ours, field), getattr(theirs, field))
    for field in type(ours).__dataclass_fields__
    if field not in ignored | _MODULES
  ]
  if "norm" not in ignored:
    fields.append(("norm.epsilon", _epsilon(ours), _epsilon(theirs)))
  return fields


def _fields_without_effect(module: nn.Module) -> set[str]:
  """Returns the fields that the module's other fields make irrelevant."""
  ignored = set()
  if isinstance(module, UNet):
    # milesial has both forms; the arrays in the file determine the form.
    ignored.add("upsample")
    if module.upsample != "transposed":
      ignored.add("act_upsampled")
    if module.padding == "same":
      ignored.add("mirrored")
  if isinstance(module, ResNet):
    if module.block is not Bottleneck:
      ignored.add("stride_in_1x1")
    if module.output_stride == 32:
      ignored.add("contract_dilation")
  if isinstance(module, VGG):
    if not module.batch_norm:
      ignored.add("norm")
    if module.output_stride == 32:
      ignored |= {"dense_pools", "dilate_pools"}
  return ignored


def _epsilon(module: nn.Module) -> float | None:
  """Returns the epsilon of the module's norm, None without a norm."""
  if module.norm is None:
    return None
  return getattr(module.norm(), "epsilon", None)


def _format(value: Any) -> str:
  return getattr(value, "__name__", None) or repr(value)
