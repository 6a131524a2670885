"""Dilations of the networks, as run, equal the published ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxseg import backbones
from jaxseg.layers.conv import Conv


def dilations(name: str, **fields) -> dict[str, int]:
  """Returns the dilation of each 3x3 convolution, by the path of its module."""
  backbone = backbones.create(name, **fields)
  found = {}

  def record(call, args, kwargs, context):
    module = context.module
    if isinstance(module, Conv) and module.kernel_size == 3:
      found["/".join(module.path)] = module.dilation
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    jax.eval_shape(
      lambda key: backbone.init(key, jnp.zeros((1, 64, 64, 3)), train=False),
      jax.random.key(0),
    )
  return found


# From torchvision's replace_stride_with_dilation; from hszhao/semseg, which
# equals PSPNet's prototxts; from DeepLab v3 (arXiv:1706.05587), Sec. 3.2.1,
# where rates are the product of unit rate and stage rate.
@pytest.mark.parametrize(
  "fields, stage3, stage4",
  [
    ({"output_stride": 32}, (1, 1, 1, 1, 1, 1), (1, 1, 1)),
    ({"output_stride": 16}, (1, 1, 1, 1, 1, 1), (1, 2, 2)),
    ({"output_stride": 8}, (1, 2, 2, 2, 2, 2), (2, 4, 4)),
    (
      {"output_stride": 8, "contract_dilation": False},
      (2, 2, 2, 2, 2, 2),
      (4, 4, 4),
    ),
    (
      {"output_stride": 16, "multi_grid": (1, 2, 4)},
      (1, 1, 1, 1, 1, 1),
      (2, 4, 8),
    ),
    (
      {"output_stride": 8, "multi_grid": (1, 2, 4)},
      (1, 2, 2, 2, 2, 2),
      (4, 8, 16),
    ),
  ],
)
def test_resnet50(fields, stage3, stage4):
  found = dilations("resnet50", **fields)
  for stage, want in ((3, stage3), (4, stage4)):
    for block, dilation in enumerate(want, start=1):
      assert found[f"stage{stage}_block{block}/conv2/conv"] == dilation


# From tensorflow/models, research/deeplab: a block of removed stride has the
# previous rate; multi_grid multiplies the rates of the last block.
@pytest.mark.parametrize(
  "output_stride, rates",
  [
    (32, (1, 1, 1, 1)),
    (16, (1, 1, 1, 2)),
    (8, (1, 2, 2, 4)),
  ],
)
def test_xception41(output_stride, rates):
  found = dilations(
    "xception41", output_stride=output_stride, multi_grid=(1, 2, 4)
  )
  for block, rate in zip(
    ("entry3", "middle8", "exit1", "exit2"), rates, strict=True
  ):
    for i, grid in enumerate((1, 2, 4), start=1):
      want = rate * grid if block == "exit2" else rate
      assert found[f"{block}/separable{i}/depthwise/conv"] == want


def test_deeplab_v1_vgg16():
  """As in vgg128_noup: pool4 and pool5 keep the size, conv5 has dilation 2."""
  found = dilations("vgg16", output_stride=8, pool_window=3, ceil_mode=True)
  assert {v for k, v in found.items() if "conv5_" in k} == {2}
  assert {v for k, v in found.items() if "conv5_" not in k} == {1}
  backbone = backbones.create(
    "vgg16",
    output_stride=8,
    pool_window=3,
    ceil_mode=True,
    dilate_pools=False,
  )
  features, _ = jax.eval_shape(
    lambda key: backbone.init_with_output(
      key, jnp.zeros((1, 321, 513, 3)), train=False
    ),
    jax.random.key(0),
  )
  # 321 -> 161 -> 81 -> 41; 513 -> 65.
  assert features["c5"].shape == (1, 41, 65, 512)


def test_fcn_vgg16_pads_and_pools_as_published():
  """Maps of a 500x500 image have sides 349, 175, 88, 44 and 22."""
  backbone = backbones.create("vgg16", padding=100, ceil_mode=True)
  features, _ = jax.eval_shape(
    lambda key: backbone.init_with_output(
      key, jnp.zeros((1, 500, 500, 3)), train=False
    ),
    jax.random.key(0),
  )
  sizes = [features[f"c{i}"].shape[1] for i in range(1, 6)]
  assert sizes == [349, 175, 88, 44, 22]
