"""Fixtures: small folders of images and masks, and their configurations."""

from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from jaxseg.config import with_data


@pytest.fixture
def write():
  """Returns a function that writes an array as an image file."""

  def write(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path

  return write


@pytest.fixture
def folder(tmp_path, write):
  """Returns a function that writes a folder of images and masks.

  The folder has `images/` and `masks/` with three classes and ignored pixels.
  """

  def make(counts=None, *, root="set", sizes=((20, 24),), classes=3):
    counts = {"train": 5, "val": 3} if counts is None else counts
    rng = np.random.default_rng(0)
    number = 0
    for split, count in counts.items():
      for _ in range(count):
        size = sizes[number % len(sizes)]
        name = Path(split, f"n{number:02d}")
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        mask = rng.integers(0, classes, size).astype(np.uint8)
        mask[0, :classes] = range(classes)
        mask[1, 0] = 255
        write(tmp_path / root / "images" / name.with_suffix(".png"), image)
        write(tmp_path / root / "masks" / name.with_suffix(".png"), mask)
        number += 1
    return tmp_path / root

  return make


@pytest.fixture
def configure(tmp_path):
  """Returns a function that makes a configuration with a small canvas."""

  def configure(path="", name="folder", loader="resident", **fields):
    config = with_data(name)
    config.data.update(
      path=str(path), loader=loader, prepared=str(tmp_path / "prepared")
    )
    if name == "folder":
      config.data.canvas = (16, 16)
    config.data.update(fields)
    config.train.batch_size = config.eval.batch_size = 4
    return config

  return configure
