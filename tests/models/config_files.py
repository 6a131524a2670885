"""Loads the files in `configs/`, which is not a package."""

import importlib.util
from pathlib import Path
from types import ModuleType

import ml_collections

CONFIGS = Path(__file__).parents[2] / "configs"


def load_module(path: Path) -> ModuleType:
  """Returns a config file as a module."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def load_config(name: str, arg: str = "") -> ml_collections.ConfigDict:
  """Returns `get_config(arg)` of configs/NAME.py."""
  return load_module(CONFIGS / f"{name}.py").get_config(arg)
