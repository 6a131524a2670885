"""Measurements of networks: shapes, equations, gradients, receptive fields.

Each function takes a Linen module with the `train` keyword of every jaxseg
network, backbone and layer, and returns plain values:

- `network_shapes` and `total_size`: output shapes and parameter counts;
- `trace_network`: every equation of the network, by the path of its module;
- `unreached_parameters`: parameters that no gradient reaches;
- `measure_receptive_field`: which pixels one unit depends on;
- `overfit`: how well repeated steps on one batch memorise it.
"""

from jaxseg.analysis.equations import NetworkTrace, trace_network
from jaxseg.analysis.gradients import unreached_parameters
from jaxseg.analysis.overfitting import Overfit, overfit
from jaxseg.analysis.receptive_field import (
  ReceptiveField,
  measure_receptive_field,
)
from jaxseg.analysis.shapes import network_shapes, total_size

__all__ = [
  "NetworkTrace",
  "Overfit",
  "ReceptiveField",
  "measure_receptive_field",
  "network_shapes",
  "overfit",
  "total_size",
  "trace_network",
  "unreached_parameters",
]
