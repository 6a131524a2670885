"""The sources, and whose names a file has."""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn

from jaxseg.backbones.resnet import ResNet
from jaxseg.backbones.vgg import VGG
from jaxseg.errors import UserError, unknown_name
from jaxseg.models.pspnet import PSPNet
from jaxseg.models.unet_backbone import UNetBackbone
from jaxseg.weights.segmentation import (
  milesial,
  semseg,
  smp,
  torchvision,
  vainf,
)
from jaxseg.weights.tables import Table

_FILES = {
  "torchvision": torchvision,
  "semseg": semseg,
  "vainf": vainf,
  "milesial": milesial,
  "smp": smp,
}
SOURCES: dict[str, dict[type[nn.Module], Callable[[Any], Table]]] = {
  name: file.TABLES for name, file in _FILES.items()
}
FIELDS: dict[str, dict[str, dict[str, Any]]] = {
  name: file.FIELDS for name, file in _FILES.items()
}
NETWORKS = tuple({kind: None for kinds in SOURCES.values() for kind in kinds})
# Beginnings of names that no other source with the same networks has.
_STARTS = {
  "torchvision": ("classifier.0.", "aux_classifier."),
  "semseg": ("layer0.", "ppm."),
  "vainf": ("classifier.classifier.", "classifier.aspp."),
  "milesial": ("inc.", "outc."),
  "smp": ("encoder.", "segmentation_head."),
}


def table_of(
  network: nn.Module, source: str | None, names: Iterable[str]
) -> tuple[str, Table]:
  """The source, and its names for `network`.

  Args:
    network: one of `NETWORKS`.
    source: whose; None is whose names occur most among `names`.
    names: of the file.

  Raises:
    UserError: an unknown source, or one that does not have this network or
      not with this backbone.
  """
  kind = type(network)
  if source not in (None, *SOURCES):
    raise unknown_name("source of weights", source, SOURCES)
  if source == "smp" and kind is PSPNet:
    raise UserError(
      "source='smp': its PSPNet reads the encoder at stride 8 through other "
      "layers than the paper's; no field of ours makes it, use smp's unet, "
      "deeplab_v3 or deeplab_v3plus, or semseg's pspnet"
    )
  having = [name for name in SOURCES if kind in SOURCES[name]]
  if source not in (None, *having):
    raise UserError(
      f"source={source!r} has no {kind.__name__}; expected "
      + " or ".join(having)
    )
  if source is not None:
    check_backbone(network, source)
    return source, SOURCES[source][kind](network)
  names = list(names)

  def occurring(source: str) -> int:
    return sum(name.startswith(_STARTS[source]) for name in names)

  return table_of(network, max(having, key=occurring), names)


def check_backbone(network: nn.Module, source: str) -> None:
  """Refuses a backbone that `source` has not, or not with our maps.

  Raises:
    UserError: which ones it has.
  """
  backbone = getattr(network, "backbone", None)
  if backbone is None:
    return
  plain = isinstance(backbone, ResNet) and not backbone.squeeze_excite
  if plain or (isinstance(network, UNetBackbone) and isinstance(backbone, VGG)):
    return
  vgg = " or a VGG" if isinstance(network, UNetBackbone) else ""
  raise UserError(
    f"source={source!r}: {type(network).__name__} on a "
    f"{type(backbone).__name__} is not the same network there (other maps or "
    f"none are handed over); expected a plain ResNet{vgg}"
  )
