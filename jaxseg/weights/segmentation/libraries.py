"""The libraries of segmentation networks, and which one a file comes from."""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn

from jaxseg.backbones.resnet import ResNet
from jaxseg.backbones.vgg import VGG
from jaxseg.errors import UserError, unknown_name
from jaxseg.models.pspnet import PSPNet
from jaxseg.models.unet_backbone import UNetBackbone
from jaxseg.weights.name_table import NameTable
from jaxseg.weights.segmentation import (
  milesial,
  semseg,
  smp,
  torchvision,
  vainf,
)

_FILES = {
  "torchvision": torchvision,
  "semseg": semseg,
  "vainf": vainf,
  "milesial": milesial,
  "smp": smp,
}
# Library -> class of the network in jaxseg -> function that returns the
# library's names.
LIBRARIES: dict[str, dict[type[nn.Module], Callable[[Any], NameTable]]] = {
  name: file.TABLES for name, file in _FILES.items()
}
# Library -> key of `MODELS` -> fields that reproduce the library's network.
FIELDS: dict[str, dict[str, dict[str, Any]]] = {
  name: file.FIELDS for name, file in _FILES.items()
}
# Classes of the networks that some library has.
NETWORKS = tuple({kind: None for kinds in LIBRARIES.values() for kind in kinds})
# Prefixes of names that no other library with the same networks uses.
_PREFIXES = {
  "torchvision": ("classifier.0.", "aux_classifier."),
  "semseg": ("layer0.", "ppm."),
  "vainf": ("classifier.classifier.", "classifier.aspp."),
  "milesial": ("inc.", "outc."),
  "smp": ("encoder.", "decoder.", "segmentation_head."),
}


def choose_library(
  network: nn.Module, library: str | None, names: Iterable[str]
) -> str:
  """Returns the library that a weight file comes from.

  Args:
    network: An instance of one of `NETWORKS`.
    library: Key of `LIBRARIES`. None selects, among the libraries that have
      this network, the one whose prefixes occur most often in `names`.
    names: Names of the arrays in the file.

  Raises:
    UserError: The library is unknown, or does not have this network or not
      on this backbone.
  """
  kind = type(network)
  if library not in (None, *LIBRARIES):
    raise unknown_name("library", library, LIBRARIES)
  if library == "smp" and kind is PSPNet:
    raise UserError(
      "library='smp': no fields of pspnet reproduce smp's PSPNet, which takes "
      "the encoder's features at stride 8, from other layers than the "
      "paper's; use smp's unet, deeplab_v3 or deeplab_v3plus, or semseg's "
      "pspnet"
    )
  candidates = [name for name, tables in LIBRARIES.items() if kind in tables]
  if library is None:
    library = _most_likely(candidates, list(names))
  if library not in candidates:
    raise UserError(
      f"library={library!r} has no {kind.__name__}; expected "
      + " or ".join(candidates)
    )
  _check_backbone(network, library)
  return library


def recognise_library(name: str, names: Iterable[str]) -> str:
  """Returns the library that a weight file of a network comes from.

  Args:
    name: Key of `MODELS`, in `FIELDS` of some library.
    names: Names of the arrays in the file.
  """
  candidates = [library for library in FIELDS if name in FIELDS[library]]
  return _most_likely(candidates, list(names))


def _most_likely(candidates: list[str], names: list[str]) -> str:
  def matches(library: str) -> int:
    return sum(name.startswith(_PREFIXES[library]) for name in names)

  return max(candidates, key=matches)


def _check_backbone(network: nn.Module, library: str) -> None:
  """Raises UserError if the library's network differs on this backbone."""
  backbone = getattr(network, "backbone", None)
  if backbone is None:
    return
  if isinstance(backbone, ResNet) and not backbone.squeeze_excite:
    return
  takes_vgg = isinstance(network, UNetBackbone)
  if takes_vgg and isinstance(backbone, VGG):
    return
  expected = "a plain ResNet or a VGG" if takes_vgg else "a plain ResNet"
  raise UserError(
    f"library={library!r}: its {type(network).__name__} on a "
    f"{type(backbone).__name__} does not exist, or reads other features of "
    f"the backbone than jaxseg's; expected {expected}"
  )


def name_table(network: nn.Module, library: str) -> NameTable:
  """Returns a library's names for the modules of a network.

  Args:
    network: An instance of one of `NETWORKS`.
    library: A library that has this network, from `choose_library`.
  """
  return LIBRARIES[library][type(network)](network)
