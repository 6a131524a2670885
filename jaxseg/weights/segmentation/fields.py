"""By which of our fields a network is a source's, and which a file's has."""

from collections.abc import Iterable, Mapping
import re
from typing import Any

import flax.linen as nn

from jaxseg import models
from jaxseg.backbones.resnet import RESNETS, Bottleneck, ResNet
from jaxseg.backbones.vgg import VGG
from jaxseg.models.deeplab_v3 import DeepLabV3
from jaxseg.models.unet import UNet
from jaxseg.weights.segmentation.sources import FIELDS

# Fields that change no answer of a trained network, ...
_TRAINING_ONLY = {
  "dropout_rate", "dropout_levels", "dropout_stages", "channel_dropout",
  "kernel_init", "dtype", "param_dtype",
}  # fmt: skip
# ... those of which no other value takes the weights, ...
_IN_THE_FILE = {
  "num_classes", "features", "up_features", "low_level_features",
  "decoder_features", "head_features", "aux_features", "cascade_blocks",
  "auxiliary", "centre", "stage_sizes", "block", "width", "groups",
  "width_per_group", "batch_norm", "modulated", "offset_groups",
}  # fmt: skip
# ... and what is compared by its own fields.
_INNER = {"parent", "name", "backbone", "norm"}
_CLASSIFIERS = (
  r"(classifier\.4|classifier\.classifier\.[34]|cls\.4|outc\.conv"
  r"|segmentation_head\.0)\.weight"
)


def differences(network: nn.Module, source: str) -> list[str]:
  """Fields in which `network` is not the source's, "FIELD=THEIRS (OURS here)".

  Weights fit all the same, and the answers are others.

  Args:
    network: one that `table_of` takes.
    source: whose.
  """
  theirs = _theirs(network, source)
  pairs = [(network, theirs, "")]
  if hasattr(network, "backbone"):
    pairs.append((network.backbone, theirs.backbone, "backbone."))
  return [
    f"{label}{field}={_shown(wanted)} ({_shown(value)} here)"
    for ours, their, label in pairs
    for field, value, wanted in _compared(ours, their)
    if value != wanted
  ]


def _theirs(network: nn.Module, source: str) -> nn.Module:
  """The source's network of this class, on a backbone of the same family."""
  having = FIELDS[source]
  name = next(name for name in having if models.MODELS[name] is type(network))
  fields = dict(having[name])
  if hasattr(network, "backbone"):
    family = "vgg11" if isinstance(network.backbone, VGG) else "resnet50"
    fields["backbone"] = {"name": family, **fields.get("backbone", {})}
  return models.create(name, num_classes=1, **fields)


def _compared(ours: nn.Module, theirs: nn.Module) -> list[tuple]:
  """Each field by which answers may differ, and both its values."""
  idle = _idle(ours) | _TRAINING_ONLY | _IN_THE_FILE
  # Where theirs is dilated the stride is free: rates grow with the resolution.
  if getattr(theirs, "output_stride", 32) < 32:
    idle.add("output_stride")
  fields = [
    (field, _value(ours, field), _value(theirs, field))
    for field in type(ours).__dataclass_fields__
    if field not in idle | _INNER
  ]
  if "norm" in idle:
    return fields
  return [*fields, ("norm.epsilon", _epsilon(ours), _epsilon(theirs))]


def _idle(module: nn.Module) -> set[str]:
  """Fields that do nothing beside this module's others."""
  idle = set()
  if isinstance(module, UNet):
    # A file has up-convolutions or has none: both forms are milesial's.
    idle.add("upsample")
    if module.upsample != "transposed":
      idle.add("act_upsampled")
    if module.padding == "same":
      idle.add("mirrored")
  if isinstance(module, ResNet):
    if module.block is not Bottleneck:
      idle.add("stride_in_1x1")
    if module.output_stride == 32:
      idle.add("contract_dilation")
  if isinstance(module, VGG):
    if not module.batch_norm:
      idle.add("norm")
    if module.output_stride == 32:
      idle |= {"dense_pools", "dilate_pools"}
  return idle


def _value(module: nn.Module, field: str) -> Any:
  """A field's value; of DeepLab v3's None, the variant's."""
  value = getattr(module, field)
  if value is None and isinstance(module, DeepLabV3):
    value = getattr(module.form(), field)
  return value


def _epsilon(module: nn.Module) -> float | None:
  """The norm's; None without one."""
  norm = module.norm and module.norm()
  return getattr(norm, "epsilon", None)


def _shown(value: Any) -> str:
  return getattr(value, "__name__", None) or repr(value)


def fields_of(
  name: str, source: str, arrays: Mapping[str, Any], backbone: str = ""
) -> dict[str, Any]:
  """The fields, number of classes included, of the network in a file.

  Args:
    name: key of `MODELS`.
    source: whose network; `from_torch` refuses one that does not have it.
    arrays: their names and tensors or NumPy arrays.
    backbone: its name; "" recognises ResNets by their blocks.
  """
  fields = dict(FIELDS.get(source, {}).get(name, {}))
  if name == "deeplab_v3" and source == "torchvision":
    fields["auxiliary"] = any(n.startswith("aux_classifier.") for n in arrays)
  if name == "unet" and "up1.up.weight" not in arrays:
    fields["upsample"] = "bilinear"
  found = backbone or resnet_of(arrays)
  if found and name != "unet":
    fields["backbone"] = {"name": found, **fields.get("backbone", {})}
    if name == "unet_backbone" and found.startswith("vgg"):
      fields["centre"] = True
  classifiers = [
    value.shape[0]
    for key, value in arrays.items()
    if re.fullmatch(_CLASSIFIERS, key)
  ]
  return {**fields, "num_classes": int(classifiers[0]) if classifiers else 21}


def resnet_of(names: Iterable[str]) -> str:
  """The plain ResNet whose blocks these are; "" if there is none."""
  names = list(names)
  seen = re.compile(r"(?:^|\.)layer([1-4])\.(\d+)\.conv1\.weight$")
  sizes = [0] * 4
  for found in filter(None, map(seen.search, names)):
    stage, block = int(found[1]) - 1, int(found[2]) + 1
    sizes[stage] = max(sizes[stage], block)
  bottleneck = any(n.endswith("layer1.0.conv3.weight") for n in names)
  plain = {"block", "stage_sizes"}
  for name, partial in RESNETS.items():
    fields = partial.keywords
    if set(fields) == plain and fields["stage_sizes"] == tuple(sizes):
      if (fields["block"].expansion > 1) == bottleneck:
        return name
  return ""
