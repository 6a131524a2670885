"""Every classification network computes what its PyTorch original does.

Random weights everywhere, running statistics included, loaded through
`weights.from_torch`; see `parity_table.py`, which also prints the measured
differences.
"""

import pytest

import parity_table as parity

pytest.importorskip("torch")
pytestmark = pytest.mark.torch


@pytest.fixture(params=parity.NETWORKS)
def network(request):
  """A network's name and its original; one is kept at a time."""
  package, _ = parity.NETWORKS[request.param]
  for needed in dict.fromkeys(("torchvision", package)):
    try:
      parity.import_original(needed)
    except ImportError as error:
      pytest.skip(f"{needed} does not load: {error}")
  return request.param, parity.build_original(request.param)


def test_equals_the_original(network):
  """Logits within 1e-4; in training, one of each family, all within 1e-3."""
  name, original = network
  assert parity.evaluation_difference(name, original) < 1e-4
  if name in parity.TRAINED:
    gradients, statistics = parity.training_differences(name, original)
    assert gradients < 1e-3
    assert statistics < 1e-3
