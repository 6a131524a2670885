"""Networks of a configuration: their norms, and fields that do not fit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxseg import models
from jaxseg.config import base
from jaxseg.errors import UserError
from jaxseg.layers.norm import BatchNorm, GroupNorm
from jaxseg.runs import network


def configuration(name, norm=None, **fields):
  """Returns the configuration of a network for crops of 64x64."""
  config = base()
  config.data.class_names = ("a", "b")
  with config.unlocked():
    config.model = models.fields(name, **fields)
  config.norm.update(norm or {})
  return config


def norms(config, kind=BatchNorm):
  """Returns the norms that the network of a configuration calls."""
  found = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, kind):
      found.append(context.module)
    return call(*args, **kwargs)

  model = network.create_model(config)
  with nn.intercept_methods(record):
    jax.eval_shape(
      lambda: model.init(
        jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False
      )
    )
  return found


def test_fields_apply_to_the_papers_norms():
  given = {"momentum": 0.5, "frozen": True}
  # SegNet's norms have Caffe's epsilon, GoogLeNet's that of TensorFlow.
  segnet = norms(configuration("segnet", given))
  googlenet = norms(configuration("pspnet", given, backbone="googlenet"))
  for found in (segnet, googlenet):
    assert {(norm.momentum, norm.frozen) for norm in found} == {(0.5, True)}
  assert {norm.epsilon for norm in segnet} == {1e-9}
  assert {norm.epsilon for norm in googlenet} == {1e-3, 1e-5}
  densenet = norms(configuration("fc_densenet56", {"epsilon": 1e-2}))
  assert {norm.epsilon for norm in densenet} == {1e-2}


def test_batch_keeps_what_the_paper_says_of_its_batch_normalisation():
  given = {"name": "batch", "momentum": 0.5}
  found = norms(configuration("segnet", given))
  assert {(norm.epsilon, norm.momentum) for norm in found} == {(1e-9, 0.5)}
  # The paper's U-Net has none.
  found = norms(configuration("unet", {"name": "batch"}, variant="milesial"))
  assert {(norm.epsilon, norm.momentum) for norm in found} == {(1e-5, 0.9)}


@pytest.mark.parametrize(
  "name", ["deeplab_v3plus", "fc_densenet56", "segnet_basic"]
)
def test_groups_divide_the_channels_of_every_layer(name):
  config = configuration(name, {"name": "group", "groups": 16})
  found = norms(config, GroupNorm)
  assert found and {norm.groups for norm in found} == {16}
  assert not norms(config)


def test_narrow_networks_have_group_norms():
  narrow = {"name": "resnet18", "width": 6, "output_stride": 8}
  config = configuration("pspnet", {"name": "group"}, backbone=narrow)
  assert network.trace(network.create_model(config), config)


@pytest.mark.parametrize("name", ["deeplab_v1", "dilatednet", "hypercolumn"])
def test_a_network_without_norms_refuses_their_fields(name):
  for norm, field in (
    ({"frozen": True}, "norm.frozen=True"),
    ({"epsilon": 0.1}, "norm.epsilon=0.1"),
    ({"name": "group"}, "norm.name=group"),
  ):
    config = configuration(name, norm)
    with pytest.raises(UserError) as error:
      network.trace(network.create_model(config), config)
    assert str(error.value).startswith(f"{field}: the network {name!r}")


def test_statistics_without_batch_normalisation_are_refused():
  config = configuration("segnet_basic", {"name": "group"})
  config.train.norm_batches = 3
  with pytest.raises(UserError, match="train.norm_batches=3.*norm_batches=0"):
    network.trace(network.create_model(config), config)


def test_a_cascade_has_no_fields_of_the_pyramid():
  config = configuration("deeplab_v3", variant="cascade", backbone="resnet50")
  network.trace(network.create_model(config), config)
  for field, value in (("rates", (1, 2)), ("features", 8)):
    config = configuration("deeplab_v3", variant="cascade")
    config.model[field] = value
    with pytest.raises(UserError, match=f"model.{field}=.*belongs to the pyr"):
      network.trace(network.create_model(config), config)
