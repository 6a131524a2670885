"""Names and fields of whole segmentation networks in third-party libraries.

Each library has one file. Its `TABLES` maps jaxseg's networks to the library's
names of their modules, and its `FIELDS` maps them to the fields that reproduce
the library's network. `shared_names` holds the names that several libraries
have in common.

- `libraries` finds the library that a weight file comes from.
- `recognition` finds the fields of the network in a file.
- `originals` describes the library's network, with which ours is compared.

A library's network that no fields of jaxseg reproduce is refused.
"""

from jaxseg.weights.segmentation.libraries import (
  FIELDS,
  LIBRARIES,
  NETWORKS,
  choose_library,
  name_table,
  recognise_library,
)
from jaxseg.weights.segmentation.originals import describe_original
from jaxseg.weights.segmentation.recognition import (
  recognise_fields,
  recognise_resnet,
)

__all__ = [
  "FIELDS",
  "LIBRARIES",
  "NETWORKS",
  "choose_library",
  "describe_original",
  "name_table",
  "recognise_fields",
  "recognise_library",
  "recognise_resnet",
]
