"""Networks: image -> {"logits", "aux_..."}; a table and `create`."""

from collections.abc import Mapping
import functools

import flax.linen as nn
import jax.numpy as jnp

from jaxseg import backbones
from jaxseg.errors import unknown_name
from jaxseg.layers.norm import NORMS
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

# The backbone of each paper, for the networks that take one; a function of
# the network's fields where it depends on them.
PAPER_BACKBONES = {
  "deeplab_v1": deeplab_v1.BACKBONE,
  "deeplab_v2": deeplab_v2.BACKBONE,
  "deeplab_v3": deeplab_v3.paper_backbone,
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


def create(name: str, *, num_classes: int, **fields) -> nn.Module:
  """Builds a network: the one place where strings become objects.

  Args:
    name: key of `MODELS`.
    num_classes: output classes.
    **fields: the network's own fields; a missing one is the paper's.
      `backbone` is a name or a dict of a name and fields (fields that are not
      given are the paper's), `norm` a key of `NORMS` or a dict of one and its
      fields, `dtype` a name such as "bfloat16".

  Raises:
    UserError: an unknown network, backbone, norm or field.
  """
  if name not in MODELS:
    raise unknown_name("model", name, MODELS)
  module = MODELS[name]
  # A network of a family is a `functools.partial` of its class.
  cls = getattr(module, "func", module)
  known = cls.__dataclass_fields__.keys() - {"parent", "name"}
  for field in fields:
    if field not in known:
      raise unknown_name(f"field of {name}", field, known)
  shared = {}
  if "norm" in fields:
    shared["norm"] = _norm(fields["norm"])
  for field in ("dtype", "param_dtype"):
    if fields.get(field) is not None:
      shared[field] = jnp.dtype(fields[field])
  fields = {**fields, **shared}
  if name in PAPER_BACKBONES:
    spec = fields.get("backbone", {})
    spec = {"name": spec} if isinstance(spec, str) else dict(spec)
    # The paper's fields reach another backbone as far as it has them.
    paper = PAPER_BACKBONES[name]
    paper = dict(paper(fields) if callable(paper) else paper)
    spec = {"name": paper.pop("name"), **spec}
    fields["backbone"] = backbones.create(spec, **{**paper, **shared})
  return module(num_classes=num_classes, **fields)


def _norm(spec: str | Mapping):
  fields = {"name": spec} if isinstance(spec, str) else dict(spec)
  name = fields.pop("name")
  if name not in NORMS:
    raise unknown_name("norm", name, NORMS)
  return functools.partial(NORMS[name], **fields)
