"""Names of whole segmentation networks in other people's PyTorch code.

Each source is one file, with the names of its networks' modules, `TABLES`, and
by which of our fields our network is theirs, `FIELDS`. What several of them
name alike is in `parts`. `sources` finds whose a file is, and `fields` which
network is in it. What no field can bring about is refused.
"""

from jaxseg.weights.segmentation.fields import (
  differences,
  fields_of,
  resnet_of,
)
from jaxseg.weights.segmentation.sources import (
  FIELDS,
  NETWORKS,
  SOURCES,
  table_of,
)

__all__ = [
  "FIELDS",
  "NETWORKS",
  "SOURCES",
  "differences",
  "fields_of",
  "resnet_of",
  "table_of",
]
