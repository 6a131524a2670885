"""The fields of the networks of third-party libraries."""

import flax.linen as nn

from jaxseg import models
from jaxseg.backbones.vgg import VGG
from jaxseg.models.unet import UNet
from jaxseg.weights import network_fields
from jaxseg.weights.segmentation.libraries import FIELDS


def describe_original(
  network: nn.Module, library: str
) -> network_fields.Description:
  """Describes a library's network, on a backbone of the same family.

  Args:
    network: An instance of one of `NETWORKS`.
    library: A library that has this network.

  Returns:
    Its fields as `network_fields.describe` returns them. Those that the weights
    determine, such as the number of features, are not the network's.
  """
  name, fields = next(
    (name, fields)
    for name, fields in FIELDS[library].items()
    if models.MODELS[name] is type(network)
  )
  fields = dict(fields)
  if hasattr(network, "backbone"):
    family = "vgg11" if isinstance(network.backbone, VGG) else "resnet50"
    fields["backbone"] = {"name": family, **fields.get("backbone", {})}
  if isinstance(network, UNet) and network.upsample == "bilinear":
    fields["upsample"] = "bilinear"  # milesial has both forms.
  return network_fields.describe(models.create(name, num_classes=1, **fields))
