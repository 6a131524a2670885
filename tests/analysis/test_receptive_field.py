"""Receptive fields of small networks equal arithmetic."""

import flax.linen as nn
import pytest

from jaxseg.analysis import measure_receptive_field
from jaxseg.errors import UserError


class Chain(nn.Module):
  """Layers one after another; convolutions are named conv0, conv1, ..."""

  layers: tuple

  @nn.compact
  def __call__(self, image, *, train):
    x = image
    for i, layer in enumerate(self.layers):
      x = layer(x, f"conv{i}")
    return {"logits": x}


def _conv(kernel, stride=1, dilation=1):
  def layer(x, name):
    return nn.Conv(
      4, kernel, strides=stride, kernel_dilation=dilation, name=name
    )(x)

  return layer


def _pool(x, name):
  return nn.max_pool(x, (2, 2), (2, 2))


def _relu(x, name):
  return nn.relu(x)


def _logits(outputs):
  return outputs["logits"]


CONV = _conv((3, 3))
# Layers, field and stride. Each layer adds (kernel - 1) times the product of
# the strides before it.
CASES = {
  "3x3": ((CONV,), (3, 3), (1, 1)),
  "3x3 3x3": ((CONV, CONV), (5, 5), (1, 1)),
  "3x3 relu 3x3": ((CONV, _relu, CONV), (5, 5), (1, 1)),
  "3x3 pool 3x3": ((CONV, _pool, CONV), (8, 8), (2, 2)),
  "strided 3x3 3x3": ((_conv((3, 3), stride=2), CONV), (7, 7), (2, 2)),
  "dilated 3x3": ((_conv((3, 3), dilation=4),), (9, 9), (1, 1)),
  "1x3": ((_conv((1, 3)),), (1, 3), (1, 1)),
  "1x5 stride (1, 2), 3x1": (
    (_conv((1, 5), stride=(1, 2)), _conv((3, 1))),
    (3, 5),
    (1, 2),
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_field_and_stride_of_a_chain(case):
  layers, size, stride = CASES[case]
  measured = measure_receptive_field(Chain(layers), (25, 31), read=_logits)
  assert measured.size == size
  assert measured.stride == stride


def test_layer_selects_a_submodule():
  model = Chain((CONV, _pool, CONV))
  assert measure_receptive_field(model, (25, 25), layer="conv0") == (
    (3, 3),
    (1, 1),
  )
  assert measure_receptive_field(model, (25, 25), layer="conv2") == (
    (8, 8),
    (2, 2),
  )


def test_a_field_that_reaches_the_border_is_refused():
  model = Chain((CONV, CONV))
  with pytest.raises(UserError, match="reaches the border of a 7x6 image"):
    measure_receptive_field(model, (7, 6), read=_logits)


def test_a_map_of_one_unit_is_refused():
  model = Chain((_pool,))
  with pytest.raises(UserError, match="1x1 units for a 3x3 image"):
    measure_receptive_field(model, (3, 3), read=_logits)


def test_a_map_without_gradient_is_refused():
  model = Chain((CONV, lambda x, name: 0 * x))
  with pytest.raises(UserError, match="no pixel has a gradient"):
    measure_receptive_field(model, (9, 9), read=_logits)
