"""FCN-ResNet: torchvision's counts, logits and gradients."""

import functools

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models, weights
from jaxseg.analysis import network_shapes, total_size
import parity_table as parity

CLASSES = 5
# torchvision: (layers, classes) -> without, with auxiliary head.
COUNTS = {
  (50, 21): (32_957_013, 35_322_218),
  (50, 19): (32_955_987, 35_320_678),
  (50, 150): (33_023_190, 35_421_548),
  (101, 21): (51_949_141, 54_314_346),
  (101, 19): (51_948_115, 54_312_806),
  (101, 150): (52_015_318, 54_413_676),
}
# A ResNet-50 of fewer blocks and channels, for both.
LAYERS = (1, 2, 1, 2)
# Our leaves of a head in torchvision's names.
HEAD = {
  ("params", "conv", "conv", "kernel"): "0.weight",
  ("params", "conv", "norm", "scale"): "1.weight",
  ("params", "conv", "norm", "bias"): "1.bias",
  ("params", "classifier", "kernel"): "4.weight",
  ("params", "classifier", "bias"): "4.bias",
  ("batch_stats", "conv", "norm", "mean"): "1.running_mean",
  ("batch_stats", "conv", "norm", "var"): "1.running_var",
}
THEIRS = {"head": "classifier", "aux_head": "aux_classifier"}


@pytest.mark.parametrize(("layers", "classes"), COUNTS)
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


def _original():
  """torchvision's network, random, running statistics included."""
  import torch

  torchvision = parity.import_original("torchvision")
  torch.manual_seed(0)
  resnet = torchvision.models.resnet
  trunk = resnet.ResNet(
    resnet.Bottleneck,
    LAYERS,
    replace_stride_with_dilation=[False, True, True],
    width_per_group=16,
  )
  model = torchvision.models.segmentation.fcn._fcn_resnet(trunk, CLASSES, True)
  with torch.no_grad():
    for module in model.modules():
      if isinstance(module, torch.nn.BatchNorm2d):
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_(0.5, 0.3)
        module.running_mean.normal_(0, 0.3)
        module.running_var.uniform_(0.5, 1.5)
  return model.double().eval()


def _ours(state):
  """A state dict, or their gradients, as our variables."""
  backbone = {
    k.removeprefix("backbone."): v
    for k, v in state.items()
    if k.startswith("backbone.")
  }
  model = models.create(
    "fcn_resnet",
    num_classes=CLASSES,
    backbone={
      "name": "resnet50",
      "stage_sizes": LAYERS,
      "width_per_group": 16,
    },
    dtype="float64",
    param_dtype="float64",
  )
  variables = weights.from_torch(model.backbone, backbone)
  variables = {part: {"backbone": variables[part]} for part in variables}
  for ours, theirs in THEIRS.items():
    head = {}
    for path, name in HEAD.items():
      value = state[f"{theirs}.{name}"].detach().numpy()
      if value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)
      head[path] = value
    for part, leaves in traverse_util.unflatten_dict(head).items():
      variables[part][ours] = leaves
  return model, variables


@pytest.mark.torch
def test_equals_torchvision():
  """Logits within 1e-4, gradients within 1e-3 of the largest."""
  torch = pytest.importorskip("torch")
  try:
    original = _original()
  except ImportError as error:
    pytest.skip(f"torchvision does not load: {error}")
  rng = np.random.default_rng(0)
  image = rng.standard_normal((1, 50, 67, 3))
  pulls = {
    key: rng.standard_normal((1, 50, 67, CLASSES))
    for key in ("logits", "aux_logits")
  }
  want = original(parity.channels_first(image))
  want = {
    ours: want[theirs].permute(0, 2, 3, 1)
    for ours, theirs in (("logits", "out"), ("aux_logits", "aux"))
  }
  sum(
    (want[k] * torch.from_numpy(v)).sum() for k, v in pulls.items()
  ).backward()
  state = original.state_dict()
  slopes = {k: v.grad for k, v in original.named_parameters()}

  with jax.enable_x64():
    model, variables = _ours(state)
    _, expected = _ours({**state, **slopes})

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params):
      outputs = model.apply(
        {**variables, "params": params}, jnp.asarray(image), train=False
      )
      return sum(jnp.sum(outputs[k] * v) for k, v in pulls.items()), outputs

    grads, outputs = jax.device_get(gradient(variables["params"]))
  for key, value in want.items():
    value = value.detach().numpy()
    assert parity.relative(outputs[key], value) < 1e-4, key
  assert parity.largest_difference(grads, expected["params"]) < 1e-3
