"""DeepLab v3: published counts, sizes, dilations, and what its fields do."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from config_files import load_config
from jaxseg import models
from jaxseg.analysis import network_shapes, total_size, unreached_parameters
from jaxseg.errors import UserError
from jaxseg.layers.atrous_pyramid import (
  AtrousSpatialPyramid,
  SeparableConvNormAct,
)
from jaxseg.layers.conv import ConvNormAct

PAPER = {"backbone": "resnet101"}
TORCHVISION = {**PAPER, "variant": "torchvision"}
RESNET50 = {"backbone": "resnet50", "variant": "torchvision"}
# Fields, classes, parameters without and with the auxiliary head.
COUNTS = [
  (PAPER, 21, 58_040_661, 58_040_661),
  (RESNET50, 21, 39_638_869, 42_004_074),
  pytest.param(
    RESNET50, 19, 39_638_355, 42_003_046, marks=pytest.mark.exhaustive
  ),
  pytest.param(
    RESNET50, 150, 39_672_022, 42_070_380, marks=pytest.mark.exhaustive
  ),
  (TORCHVISION, 21, 58_630_997, 60_996_202),
  pytest.param(
    TORCHVISION, 19, 58_630_483, 60_995_174, marks=pytest.mark.exhaustive
  ),
  pytest.param(
    TORCHVISION, 150, 58_664_150, 61_062_508, marks=pytest.mark.exhaustive
  ),
]
# A block of each stage, and three where the grid has three rates.
SHALLOW = {"name": "resnet50", "stage_sizes": (1, 1, 2, 3)}
SMALL = {"name": "resnet18", "width": 4, "stage_sizes": (1, 1, 1, 1)}


def _shapes(size, num_classes=21, *, backbone, **fields):
  known = models.fields(
    "deeplab_v3", backbone=backbone, variant=fields.pop("variant", "paper")
  )
  model = models.create(num_classes=num_classes, **{**known, **fields})
  return network_shapes(model, size, capture_intermediates=True)


def _dilations(fields) -> dict[str, int]:
  """Returns the dilation of each dilated convolution, by path."""
  seen = {}

  def record(next_function, args, kwargs, context):
    module = context.module
    if getattr(module, "dilation", 1) != 1 and hasattr(module, "padding"):
      seen["/".join(module.path)] = module.dilation
    return next_function(*args, **kwargs)

  with nn.intercept_methods(record):
    _shapes((65, 65), 2, **fields)
  return seen


@pytest.mark.parametrize(("fields", "classes", "without", "count"), COUNTS)
def test_parameter_counts_are_published(fields, classes, without, count):
  params = _shapes((65, 65), classes, **fields)[1]["params"]
  assert total_size(params) == count
  params = {k: v for k, v in params.items() if k != "aux_head"}
  assert total_size(params) == without
  if without != count and classes == 21:
    assert "aux_head" not in _shapes((65, 65), auxiliary=False, **{
      **fields, "backbone": SHALLOW
    })[1]["params"]  # fmt: skip


def test_the_cascade_adds_nine_bottlenecks():
  """The bottlenecks have 2048 and 512 features; the classifier reads 2048."""
  params = _shapes((65, 65), variant="cascade", backbone=SHALLOW)[1]["params"]
  bottleneck = 2 * 2048 * 512 + 9 * 512**2 + 2 * (512 + 512 + 2048)
  assert total_size(params["cascade"]) == 9 * bottleneck
  assert total_size(params["classifier"]) == 2049 * 21
  assert set(params) == {"backbone", "cascade", "classifier"}


@pytest.mark.parametrize(("output_stride", "side"), [(16, 33), (8, 65)])
def test_a_crop_of_513(output_stride, side):
  outputs, variables = _shapes(
    (513, 513), backbone={**SHALLOW, "output_stride": output_stride}
  )
  (scores,) = variables["intermediates"]["classifier"]["__call__"]
  assert scores.shape == (1, side, side, 21)
  assert outputs["logits"].shape == (1, 513, 513, 21)


@pytest.mark.parametrize(
  ("output_stride", "last", "rates"),
  [(16, (2, 4, 8), (6, 12, 18)), (8, (4, 8, 16), (12, 24, 36))],
)
def test_multi_grid_and_rates_double_with_the_resolution(
  output_stride, last, rates
):
  """Output stride 8 has twice the dilations of 16 (Sec. 3.2.1 and 3.3)."""
  seen = _dilations({"backbone": {**SHALLOW, "output_stride": output_stride}})
  blocks = [f"backbone/stage4_block{b}/conv2/conv" for b in (1, 2, 3)]
  assert tuple(seen[name] for name in blocks) == last
  branches = [f"aspp/atrous{i}/conv" for i in (1, 2, 3)]
  assert tuple(seen[name] for name in branches) == rates


def test_torchvision_has_no_multi_grid():
  seen = _dilations({**TORCHVISION, "backbone": SHALLOW})
  third = [f"backbone/stage3_block{b}/conv2/conv" for b in (1, 2)]
  fourth = [f"backbone/stage4_block{b}/conv2/conv" for b in (1, 2, 3)]
  assert [seen.get(name, 1) for name in third] == [1, 2]
  assert [seen[name] for name in fourth] == [2, 4, 4]
  assert [seen[f"aspp/atrous{i}/conv"] for i in (1, 2, 3)] == [12, 24, 36]


def test_rates_of_the_cascade():
  """Fig. 3b: 2, 4, 8, 16 at output stride 16, times the grid (1, 2, 1)."""
  seen = _dilations({"variant": "cascade", "backbone": SHALLOW})
  for block, rate in ((5, 4), (6, 8), (7, 16)):
    units = [f"cascade/block{block}_unit{u}/conv2/conv" for u in (1, 2, 3)]
    assert [seen[name] for name in units] == [rate, 2 * rate, rate]


def test_weights_fit_every_output_stride():
  """The second stage of training starts from the weights of the first."""
  trees = [
    _shapes((65, 65), 2, backbone={**SMALL, "output_stride": s})[1]
    for s in (16, 8, 4)
  ]
  for tree in trees[1:]:
    assert tree["params"] == trees[0]["params"]
    assert tree["batch_stats"] == trees[0]["batch_stats"]


def test_unknown_variants_are_named():
  with pytest.raises(UserError, match="did you mean 'torchvision'"):
    _shapes((65, 65), 2, variant="torchvison", backbone=SMALL)


@pytest.mark.slow
def test_gradient_reaches_every_parameter_of_the_cascade():
  fields = models.fields("deeplab_v3", backbone=SMALL, variant="cascade")
  fields["cascade_blocks"] = 1
  model = models.create(num_classes=3, **fields)
  assert unreached_parameters(model, (33, 41), batch=4) == []


def test_far_pixels_are_connected_by_the_mean_alone():
  """Only the mean of the image reads pixels further away than the rate."""
  pyramid = AtrousSpatialPyramid(
    (2, 3, 4), 4, 0.0, *(functools.partial(ConvNormAct, norm=None),) * 2
  )
  x = jax.random.normal(jax.random.key(0), (1, 21, 21, 3))
  variables = pyramid.init(jax.random.key(1), x, train=False)
  apply = functools.partial(pyramid.apply, variables, train=False)
  # One corner is increased and another decreased, so the mean is unchanged.
  moved = x.at[0, 0, 0].add(1.0).at[0, 20, 20].add(-1.0)
  change = np.abs(apply(moved) - apply(x)).max(-1)[0]
  assert change[0, 0] > 1e-3 and change[4, 4] > 1e-3
  np.testing.assert_allclose(change[5:16, 5:16], 0, atol=1e-5)
  alone = np.abs(apply(x.at[0, 0, 0].add(1.0)) - apply(x)).max(-1)[0]
  assert alone[10, 10] > 1e-5


def test_separable_weights():
  """9 c + c f is 542,720 and 9 c f is 4,718,592 for c = 2048 and f = 256."""
  conv = functools.partial(ConvNormAct, norm=None, use_bias=False)
  x = jax.ShapeDtypeStruct((1, 3, 3, 2048), jnp.float32)
  count = {}
  for kind in (SeparableConvNormAct(256, conv=conv), conv(256)):
    tree = jax.eval_shape(
      functools.partial(kind.init, train=False), jax.random.key(0), x
    )
    count[type(kind)] = total_size(tree)
  assert list(count.values()) == [542_720, 4_718_592]


def test_both_stages_of_training_are_the_papers():
  """Sec. 4.1: 0.007 at 16, then 0.001 at 8 with frozen statistics."""
  first, second = (
    load_config("deeplab_v3", arg) for arg in ("camvid", "camvid,finetune")
  )
  assert first.model.backbone.output_stride == 16
  assert not first.norm.frozen and first.norm.momentum == 0.9997
  assert first.optimizer.learning_rate == 0.007
  assert second.model.backbone.output_stride == 8 and second.norm.frozen
  assert second.optimizer.learning_rate == pytest.approx(0.001)
  for c in (first, second):
    assert c.train.steps == 30_000 and c.train.batch_size == 16
    assert (c.schedule.name, c.schedule.power) == ("poly", 0.9)
