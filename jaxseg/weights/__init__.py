"""Weights of other frameworks and our own files, never loaded by guesswork.

- `from_torch(model, state_dict)` maps a PyTorch state dict onto variables;
- `read_file` reads a downloaded file, `save` and `load` our own;
- `initialise` is what `config.init` does to a fresh network.
"""

from jaxseg.weights.files import load, read_file, save
from jaxseg.weights.initialise import initialise
from jaxseg.weights.pytorch import from_torch

__all__ = ["from_torch", "initialise", "load", "read_file", "save"]
