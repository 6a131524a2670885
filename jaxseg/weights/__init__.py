"""Loads weights of other frameworks, and reads and writes jaxseg's files.

- `read_file(path)` reads any weight file as named arrays.
- `from_torch(model, state_dict)` converts a PyTorch state dict into the
  variables of a network.
- `save(path, variables)` writes variables to a file and `load(path)` reads
  them back.
- `describe(network)` returns the fields that `save` stores beside the weights.
- `initialise(network, variables, model=..., backbone=...)` replaces fresh
  variables by those of files, as `config.init` asks.

Arrays are matched by exact name. A file is loaded completely or refused with
a report of every array that does not match.

    arrays = weights.read_file("resnet50.pth")
    model = models.create("classifier", num_classes=1000, backbone="resnet50")
    variables = weights.from_torch(model, arrays)
    weights.save("resnet50.npz", variables)
"""

from jaxseg.weights.files import check_target, load, read_file, save
from jaxseg.weights.initialise import initialise
from jaxseg.weights.network_fields import describe
from jaxseg.weights.pytorch import from_torch

__all__ = [
  "check_target",
  "describe",
  "from_torch",
  "initialise",
  "load",
  "read_file",
  "save",
]
