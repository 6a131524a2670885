"""DeepLab v3+: published counts, sizes, the skip, and other encoders."""

import pytest

from jaxseg import models
from jaxseg.analysis import network_shapes, total_size

PLAIN = dict(
  separable_aspp=False, separable_decoder=False, decoder_convs=1,
  align_corners=False,
)  # fmt: skip
SMP = dict(norm_between=False, aspp_conv=True, decoder_convs=1)


def _conv7(name):
  return {"backbone": {"name": name, "stem": "conv7"}}


# The authors' code, VainF's and segmentation_models_pytorch's.
COUNTS = [
  ({}, 21, 41_055_413),
  (PLAIN | _conv7("resnet50"), 21, 39_761_845),
  (SMP | _conv7("resnet50"), 21, 26_682_725),
]
MORE_COUNTS = [
  ({"backbone": "resnet50"}, 21, 26_819_909),
  ({}, 19, 41_054_899),
  ({"backbone": "resnet101"}, 21, 45_812_037),
  (PLAIN | _conv7("resnet50"), 19, 39_761_331),
  (PLAIN | _conv7("resnet101"), 21, 58_753_973),
  (PLAIN | _conv7("resnet101"), 19, 58_753_459),
  (SMP | _conv7("resnet101"), 21, 45_674_853),
]
SHALLOW = {"name": "resnet50", "stage_sizes": (1, 1, 1, 1)}


def _shapes(size, num_classes=21, **fields):
  model = models.create("deeplab_v3plus", num_classes=num_classes, **fields)
  return network_shapes(model, size, capture_intermediates=True)


@pytest.mark.parametrize(
  ("fields", "classes", "count"),
  [
    *COUNTS,
    *(pytest.param(*row, marks=pytest.mark.exhaustive) for row in MORE_COUNTS),
  ],
)
def test_parameter_counts_are_published(fields, classes, count):
  params = _shapes((65, 65), classes, **fields)[1]["params"]
  assert total_size(params) == count
  parts = {name: total_size(part) for name, part in params.items()}
  if not fields:
    assert parts["backbone"] == 37_867_312
    if classes == 21:
      # The authors' network without the decoder.
      without = parts["backbone"] + parts["aspp"] + parts["classifier"]
      assert without == 40_892_485
  elif fields.items() >= SMP.items():
    # Pyramid and decoder, on either backbone.
    assert count - parts["backbone"] - parts["classifier"] == 3_169_296


@pytest.mark.parametrize(("output_stride", "side"), [(16, 33), (8, 65)])
def test_a_crop_of_513(output_stride, side):
  """The pyramid has side 33 or 65, the decoder side 129 and 304 features."""
  outputs, variables = _shapes(
    (513, 513), backbone={**SHALLOW, "output_stride": output_stride}
  )
  seen = variables["intermediates"]
  assert seen["aspp"]["__call__"][0].shape == (1, side, side, 256)
  assert seen["low_level"]["__call__"][0].shape == (1, 129, 129, 48)
  assert seen["classifier"]["__call__"][0].shape == (1, 129, 129, 21)
  assert outputs["logits"].shape == (1, 513, 513, 21)
  kernel = variables["params"]["decoder1"]["depthwise"]["conv"]["kernel"]
  assert kernel.shape == (3, 3, 1, 304)


@pytest.mark.parametrize(
  ("backbone", "low", "high"),
  [
    ("mobilenet_v2", 24, 320),
    ("efficientnet_b0", 24, 320),
    pytest.param("efficientnet_b4", 32, 448, marks=pytest.mark.slow),
    pytest.param("xception41", 256, 2048, marks=pytest.mark.slow),
    pytest.param("densenet121", 256, 1024, marks=pytest.mark.slow),
  ],
)
def test_other_backbones(backbone, low, high):
  outputs, variables = _shapes((65, 97), backbone=backbone)
  assert outputs["logits"].shape == (1, 65, 97, 21)
  params = variables["params"]
  assert params["low_level"]["conv"]["kernel"].shape == (1, 1, low, 48)
  assert params["aspp"]["conv1x1"]["conv"]["kernel"].shape[2] == high
