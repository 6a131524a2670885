"""FCN-ResNet: torchvision's parameter counts."""

import pytest

from jaxseg import models
from jaxseg.analysis import network_shapes, total_size

# torchvision: (layers, classes) -> counts without and with auxiliary head.
COUNTS = {
  (50, 21): (32_957_013, 35_322_218),
  (50, 19): (32_955_987, 35_320_678),
  (50, 150): (33_023_190, 35_421_548),
  (101, 21): (51_949_141, 54_314_346),
  (101, 19): (51_948_115, 54_312_806),
  (101, 150): (52_015_318, 54_413_676),
}


@pytest.mark.parametrize(
  ("layers", "classes"),
  [
    (50, 21),
    (101, 150),
    *(
      pytest.param(*case, marks=pytest.mark.exhaustive)
      for case in sorted(COUNTS.keys() - {(50, 21), (101, 150)})
    ),
  ],
)
def test_parameter_counts_are_torchvisions(layers, classes):
  model = models.create(
    "fcn_resnet", num_classes=classes, backbone=f"resnet{layers}"
  )
  outputs, variables = network_shapes(model, (65, 97))
  assert {k: v.shape for k, v in outputs.items()} == {
    "logits": (1, 65, 97, classes),
    "aux_logits": (1, 65, 97, classes),
  }
  params = variables["params"]
  without = {k: v for k, v in params.items() if k != "aux_head"}
  assert (total_size(without), total_size(params)) == COUNTS[layers, classes]
