"""The table of networks, and the functions that build them.

A network maps images to `{"logits": ..., "aux_...": ...}`. `create` builds one
by name; `fields` lists the fields that it can be built with.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg import backbones
from jaxseg.errors import UserError, unknown_name
from jaxseg.layers.norm import NORMS, BatchNorm
from jaxseg.models import (
  classifier,
  deconvnet,
  deeplab_v1,
  deeplab_v2,
  deeplab_v3,
  deeplab_v3plus,
  deformable_deeplab,
  dilatednet,
  fc_densenet,
  fcn,
  fcn_resnet,
  hypercolumn,
  pspnet,
  segnet,
  unet,
  unet_backbone,
)

MODELS = {
  "classifier": classifier.Classifier,
  "deeplab_v1": deeplab_v1.DeepLabV1,
  "deeplab_v2": deeplab_v2.DeepLabV2,
  "deeplab_v3": deeplab_v3.DeepLabV3,
  "deeplab_v3plus": deeplab_v3plus.DeepLabV3Plus,
  "deformable_deeplab": deformable_deeplab.DeformableDeepLab,
  "fcn_32s": fcn.fcn_32s,
  "fcn_16s": fcn.fcn_16s,
  "fcn_8s": fcn.fcn_8s,
  "fcn_8s_at_once": fcn.fcn_8s_at_once,
  "fcn_alexnet": fcn.fcn_alexnet,
  "fcn_resnet": fcn_resnet.FCNResNet,
  "hypercolumn": hypercolumn.Hypercolumn,
  "pspnet": pspnet.PSPNet,
  "deconvnet": deconvnet.DeconvNet,
  "segnet": segnet.SegNet,
  "segnet_basic": segnet.SegNetBasic,
  "bayesian_segnet": segnet.BayesianSegNet,
  "dilatednet": dilatednet.DilatedNet,
  "unet": unet.UNet,
  "unet_backbone": unet_backbone.UNetBackbone,
  "fc_densenet56": fc_densenet.fc_densenet56,
  "fc_densenet67": fc_densenet.fc_densenet67,
  "fc_densenet103": fc_densenet.fc_densenet103,
}

# Name and fields of each paper's backbone, for the networks that take one.
PAPER_BACKBONES = {
  "deeplab_v1": deeplab_v1.BACKBONE,
  "deeplab_v2": deeplab_v2.BACKBONE,
  "deeplab_v3": deeplab_v3.BACKBONE,
  "deeplab_v3plus": deeplab_v3plus.BACKBONE,
  "deformable_deeplab": deformable_deeplab.BACKBONE,
  "fcn_32s": fcn.BACKBONE,
  "fcn_16s": fcn.BACKBONE,
  "fcn_8s": fcn.BACKBONE,
  "fcn_8s_at_once": fcn.BACKBONE,
  "fcn_alexnet": fcn.ALEXNET_BACKBONE,
  "fcn_resnet": fcn_resnet.BACKBONE,
  "hypercolumn": hypercolumn.BACKBONE,
  "pspnet": pspnet.BACKBONE,
  "classifier": classifier.BACKBONE,
  "deconvnet": deconvnet.BACKBONE,
  "segnet": segnet.BACKBONE,
  "bayesian_segnet": segnet.BAYESIAN_BACKBONE,
  "dilatednet": dilatednet.BACKBONE,
  "unet_backbone": unet_backbone.BACKBONE,
}

# Variants by network; each holds the fields that differ from the paper's.
VARIANTS = {
  "deeplab_v1": deeplab_v1.VARIANTS,
  "deeplab_v2": deeplab_v2.VARIANTS,
  "deeplab_v3": deeplab_v3.VARIANTS,
  "deformable_deeplab": deformable_deeplab.VARIANTS,
  "pspnet": pspnet.VARIANTS,
  "unet": unet.VARIANTS,
}


def create(name: str, *, num_classes: int, **fields) -> nn.Module:
  """Builds a network from its name and fields.

  Args:
    name: Key of `MODELS`.
    num_classes: Number of classes.
    **fields: Fields of the network; the others have the paper's values.
      `backbone` is a name, or a dict of "name" and fields; its other fields
      have the values that `fields` returns for this backbone. `norm` is
      "paper" or a key of `NORMS`, or a dict of "name" and fields. "paper" is
      the network's and the backbone's own norm, and "batch" too if that is a
      batch normalisation; fields that are missing or None have its values.
      `dtype` and `param_dtype` are names such as "bfloat16". The backbone gets
      the same `norm`, `dtype` and `param_dtype`.

  Raises:
    UserError: The network, its backbone, norm or a field is unknown.
  """
  entry = _entry(name)
  known = backbones.defaults(entry)
  for field in fields:
    if field not in known:
      raise unknown_name(f"field of {name}", field, known)
  shared = {}
  for field in ("dtype", "param_dtype"):
    if fields.get(field) is not None:
      shared[field] = jnp.dtype(fields[field])
  norm = fields.pop("norm", "paper")
  fields = {**fields, **shared}
  if "norm" in known:
    fields["norm"] = _norm(norm, known["norm"])
  if name in PAPER_BACKBONES:
    spec = _backbone_spec(name, fields.get("backbone"))
    has = backbones.field_names(spec["name"])
    paper = _paper_backbone(name, spec["name"])
    passed = {key: value for key, value in shared.items() if key in has}
    if "norm" in has:
      own = backbones.defaults(backbones.BACKBONES[spec["name"]])
      passed["norm"] = _norm(norm, {**own, **paper}["norm"])
    fields["backbone"] = backbones.create(spec, **{**paper, **passed})
  return entry(num_classes=num_classes, **fields)


def fields(
  name: str,
  *,
  backbone: str | Mapping[str, Any] | None = None,
  variant: str = "paper",
) -> dict[str, Any]:
  """Returns every field of a network and its backbone with the paper's value.

  `create(**fields("pspnet"), num_classes=21)` is the paper's network. A config
  file starts from this dict, so each field in it can be overridden.

  Args:
    name: Key of `MODELS`.
    backbone: Name of another backbone than the paper's, or a dict of "name"
      and fields. A field that the paper sets on its own backbone applies if
      this backbone has it.
    variant: "paper", or a key of `VARIANTS[name]`.

  Returns:
    `{"name": ..., FIELD: value, ..., "backbone": {"name": ..., ...}}` with
    plain values. It omits `num_classes`, `norm`, `dtype`, `param_dtype` and
    fields that hold functions.

  Raises:
    UserError: The network, its backbone, variant or a field is unknown.
  """
  changes = _variant(name, variant)
  found = {"name": name, **backbones.writable(backbones.defaults(_entry(name)))}
  if name in PAPER_BACKBONES:
    spec = _backbone_spec(name, backbone, changes.pop("backbone", {}))
    paper = _paper_backbone(name, spec["name"])
    found["backbone"] = {
      "name": spec["name"],
      **backbones.fields(spec["name"]),
      **backbones.writable(paper),
      **spec,
    }
    backbones.create(found["backbone"])  # Refuses unknown fields.
  elif backbone is not None:
    raise UserError(f"{name} takes no backbone, but backbone={backbone!r}")
  return {**found, **changes}


def _entry(name: str):
  if name not in MODELS:
    raise unknown_name("model", name, MODELS)
  return MODELS[name]


def _variant(name: str, variant: str) -> dict[str, Any]:
  """Returns the fields of a variant that differ from the paper's."""
  _entry(name)
  known = {"paper": {}, **VARIANTS.get(name, {})}
  if variant not in known:
    raise unknown_name(f"variant of {name}", variant, known)
  return dict(known[variant])


def _backbone_spec(
  name: str,
  spec: str | Mapping[str, Any] | None,
  variant: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Returns name and fields of a backbone, the paper's by default.

  Args:
    name: Key of `MODELS`.
    spec: Name, or a dict of "name" and fields; None is the paper's backbone.
    variant: Fields that the variant of the network sets on its backbone. One
      applies if the backbone has it and `spec` does not set it.
  """
  own = {"name": spec} if isinstance(spec, str) else dict(spec or {})
  variant = dict(variant or {})
  own.setdefault("name", variant.pop("name", PAPER_BACKBONES[name]["name"]))
  has = backbones.field_names(own["name"])
  return {**{k: v for k, v in variant.items() if k in has}, **own}


def _paper_backbone(name: str, backbone: str) -> dict[str, Any]:
  """Returns the fields that a paper sets and that a backbone has."""
  has = backbones.field_names(backbone)
  return {k: v for k, v in PAPER_BACKBONES[name].items() if k in has}


def _norm(
  spec: str | Mapping[str, Any], paper: Callable[..., nn.Module] | None
) -> Callable[..., nn.Module] | None:
  """Returns a factory of normalisation layers.

  Args:
    spec: "paper", a key of `NORMS`, or a dict of "name" and fields. Fields that
      are None have the values of the paper's norm, or of the class.
    paper: The norm of the network or of the backbone, None if it has none.
  """
  fields = {"name": spec} if isinstance(spec, str) else dict(spec)
  name = fields.pop("name")
  if name not in ("paper", *NORMS):
    raise unknown_name("norm", name, ("paper", *NORMS))
  given = {key: value for key, value in fields.items() if value is not None}
  norm = paper if name == "paper" else NORMS[name]
  kind = getattr(paper, "func", paper)
  if name == "batch" and isinstance(kind, type) and issubclass(kind, BatchNorm):
    norm = paper
  if norm is None or not given:
    return norm
  return functools.partial(norm, **given)
