"""What the files in `configs/` say, which are scripts and no package."""

import importlib.util
from pathlib import Path

import ml_collections

CONFIGS = Path(__file__).parents[2] / "configs"


def load_config(name: str, arg: str = "") -> ml_collections.ConfigDict:
  """`get_config(arg)` of configs/NAME.py."""
  path = CONFIGS / f"{name}.py"
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg)
