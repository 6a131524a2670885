"""Classification networks compute what their PyTorch originals compute.

The weights are random, running statistics included, and are loaded through
`weights.from_torch`. `parity_table.py` has the comparisons and prints the
measured differences.
"""

import pytest

from jaxseg.analysis import total_size
import parity_table as parity

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

# A network of each family, and where blocks differ, of each kind of block. The
# other members of a family differ in depth and width alone.
REPRESENTATIVES = {*parity.TRAINED, "vgg11", "resnet18"}


def _case(name: str):
  marks = () if name in REPRESENTATIVES else pytest.mark.exhaustive
  return pytest.param(name, marks=marks)


def _import_original(name: str) -> None:
  """Imports the network's package, or skips the test where it cannot."""
  package, _ = parity.NETWORKS[name]
  for needed in dict.fromkeys(("torchvision", package)):
    try:
      parity.import_original(needed)
    except ImportError as error:
      pytest.skip(f"{needed} does not load: {error}")


@pytest.mark.parametrize(
  "name", [name for name in parity.NETWORKS if name not in REPRESENTATIVES]
)
def test_every_array_of_the_original_is_loaded(name):
  """Depth, widths and names of the other networks equal the originals'."""
  _import_original(name)
  original = parity.abstract_original(name)
  _, variables = parity.convert(name, parity.zeros_of(original))
  count = sum(value.numel() for value in original.parameters())
  assert total_size(variables["params"]) == count


@pytest.mark.parametrize("name", [_case(name) for name in parity.NETWORKS])
def test_equals_the_original(name):
  """Logits agree within 1e-4; gradients and statistics within 1e-3."""
  _import_original(name)
  original = parity.build_original(name)
  assert parity.evaluation_difference(name, original) < 1e-4
  if name in parity.TRAINED:
    gradients, statistics = parity.training_differences(name, original)
    assert gradients < 1e-3
    assert statistics < 1e-3
