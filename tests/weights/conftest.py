"""Fixtures: the state dict of a ResNet-18, written without PyTorch."""

import numpy as np
import pytest

from jaxseg import models

WIDTH, CLASSES = 4, 5
SMALL = {"name": "resnet18", "width": WIDTH}


def resnet18_shapes(width: int, classes: int) -> dict[str, tuple[int, ...]]:
  """Returns the names and shapes of torchvision's ResNet-18."""
  shapes = {}

  def conv_norm(conv, norm, out, into, kernel):
    shapes[f"{conv}.weight"] = (out, into, kernel, kernel)
    for entry in ("weight", "bias", "running_mean", "running_var"):
      shapes[f"{norm}.{entry}"] = (out,)
    shapes[f"{norm}.num_batches_tracked"] = ()

  conv_norm("conv1", "bn1", width, 3, 7)
  into = width
  for stage in range(1, 5):
    out = width * 2 ** (stage - 1)
    for block in range(2):
      at = f"layer{stage}.{block}"
      conv_norm(f"{at}.conv1", f"{at}.bn1", out, into, 3)
      conv_norm(f"{at}.conv2", f"{at}.bn2", out, out, 3)
      if into != out:
        conv_norm(f"{at}.downsample.0", f"{at}.downsample.1", out, into, 1)
      into = out
  shapes["fc.weight"] = (classes, into)
  shapes["fc.bias"] = (classes,)
  return shapes


@pytest.fixture
def state_dict() -> dict[str, np.ndarray]:
  """Returns random arrays of a narrow ResNet-18 with five classes."""
  rng = np.random.default_rng(0)
  return {
    name: rng.standard_normal(shape).astype(np.float32)
    if shape
    else np.asarray(7)
    for name, shape in resnet18_shapes(WIDTH, CLASSES).items()
  }


@pytest.fixture
def resnet18_file(tmp_path) -> str:
  """Writes zeros for a ResNet-18 of two classes, under PyTorch's names."""
  shapes = resnet18_shapes(64, 2)
  path = tmp_path / "theirs.npz"
  np.savez(path, **{n: np.zeros(s, np.float32) for n, s in shapes.items()})
  return str(path)


@pytest.fixture
def classifier():
  """Returns the network that `state_dict` belongs to."""
  return models.create("classifier", num_classes=CLASSES, backbone=SMALL)
