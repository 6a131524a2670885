"""Segmentation networks compute what their PyTorch originals compute.

The weights are random, running statistics included. `weights.from_torch` loads
them into the network that `segmentation.recognise_fields` finds in the file.
"""

import functools
import importlib.util

import jax
import numpy as np
import pytest

from jaxseg import models, weights
from jaxseg.weights import segmentation
import parity_table as parity

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import segmentation_originals as originals  # noqa: E402

SHALLOW = {"name": "resnet50", "stage_sizes": originals.LAYERS}
ODD, EVEN, NESTED = (57, 83), (64, 96), (57, 89)
# Network, library, original, further fields, sizes.
CASES = {
  "torchvision fcn_resnet50": (
    "fcn_resnet",
    "torchvision",
    functools.partial(originals.torchvision_network, "fcn", "fcn_resnet50"),
    {"backbone": SHALLOW},
    (ODD, EVEN),
  ),
  "torchvision deeplabv3_resnet50": (
    "deeplab_v3",
    "torchvision",
    functools.partial(
      originals.torchvision_network, "deeplabv3", "deeplabv3_resnet50"
    ),
    {"backbone": SHALLOW},
    (ODD, EVEN),
  ),
  "vainf deeplabv3": (
    "deeplab_v3",
    "vainf",
    functools.partial(originals.VainF, originals.V3Head),
    {"backbone": SHALLOW},
    (ODD, EVEN),
  ),
  "vainf deeplabv3plus": (
    "deeplab_v3plus",
    "vainf",
    functools.partial(originals.VainF, originals.V3PlusHead),
    {"backbone": SHALLOW},
    (ODD, EVEN),
  ),
  "semseg pspnet": (
    "pspnet",
    "semseg",
    originals.SemsegPSPNet,
    {"backbone": SHALLOW},
    # It needs sides of 8 k + 1.
    (NESTED,),
  ),
  "milesial transposed": (
    "unet",
    "milesial",
    functools.partial(originals.MilesialUNet, False),
    {},
    (ODD, EVEN),
  ),
  "milesial bilinear": (
    "unet",
    "milesial",
    functools.partial(originals.MilesialUNet, True, depth=2),
    {},
    (ODD, EVEN),
  ),
}
# Networks of smp need sides that are multiples of 32.
SMP = {
  "Unet resnet34": ("unet_backbone", "Unet", "resnet34"),
  "Unet vgg11_bn": ("unet_backbone", "Unet", "vgg11_bn"),
  "DeepLabV3 resnet18": ("deeplab_v3", "DeepLabV3", "resnet18"),
  "DeepLabV3Plus resnet50": ("deeplab_v3plus", "DeepLabV3Plus", "resnet50"),
}
# If smp is installed and cannot be imported, the tests fail.
needs_smp = pytest.mark.skipif(
  importlib.util.find_spec("segmentation_models_pytorch") is None,
  reason="segmentation_models_pytorch is not installed",
)


def smp_case(case):
  """Returns the network's name, the original, and further fields."""
  name, theirs, encoder = SMP[case]
  original = originals.randomised(originals.smp_network(theirs, encoder))
  own = {} if encoder.startswith("resnet") else {"encoder": encoder}
  return name, original, own


def build(name, library, original, own, dtype=None):
  """Builds the network with the variables of the original's state dict."""
  state = original.state_dict()
  backbone = own.pop("encoder", "")
  fields = segmentation.recognise_fields(name, library, state, backbone)
  spec = {**fields.get("backbone", {}), **own.get("backbone", {})}
  fields |= own | ({"backbone": spec} if spec else {})
  fields |= {"dtype": dtype, "param_dtype": dtype} if dtype else {}
  model = models.create(name, **fields)
  return model, weights.from_torch(model, state, library)


def evaluation_difference(name, library, original, own, sizes) -> float:
  """Returns the largest relative difference of any output at any size."""
  model, variables = build(name, library, original, dict(own))
  apply = jax.jit(functools.partial(model.apply, train=False))
  differences = []
  for size in sizes:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, *size, 3)).astype(np.float32)
    with torch.no_grad():
      theirs = originals.outputs(original, parity.channels_first(image))
    ours = apply(variables, image)
    assert ours.keys() == theirs.keys()
    differences += [parity.relative(ours[k], theirs[k].numpy()) for k in ours]
  return parity.largest(differences)


@pytest.mark.parametrize("case", CASES)
def test_equals_the_original(case):
  name, library, build_original, own, sizes = CASES[case]
  original = originals.randomised(build_original())
  assert evaluation_difference(name, library, original, own, sizes) < 1e-4


@needs_smp
@pytest.mark.parametrize("case", SMP)
def test_equals_segmentation_models_pytorch(case):
  name, original, own = smp_case(case)
  assert evaluation_difference(name, "smp", original, own, (EVEN,)) < 1e-4


def gradient_difference(name, library, original, own, size) -> float:
  """Returns the largest relative difference of the gradients.

  The loss is a random projection of all outputs, in training mode and float64.
  """
  original = original.double().train()
  rng = np.random.default_rng(0)
  image = rng.standard_normal((4, *size, 3))
  pull = rng.standard_normal((4, *size, originals.CLASSES))
  state = {k: v.clone() for k, v in original.state_dict().items()}
  found = originals.outputs(original, parity.channels_first(image))
  weight = torch.from_numpy(pull)
  sum((value * weight).sum() for value in found.values()).backward()
  gradients = {k: p.grad for k, p in original.named_parameters()}
  original.load_state_dict(state)
  with jax.enable_x64():
    model, variables = build(name, library, original, dict(own), "float64")
    expected = weights.from_torch(model, {**state, **gradients}, library)
    ours, _ = parity.train_gradients(model, variables, image, pull)
  return parity.largest_difference(ours, expected["params"])


@pytest.mark.slow
@pytest.mark.parametrize(
  "case",
  [
    # The pyramid of torchvision's DeepLab v3 is the same.
    pytest.param(case, marks=pytest.mark.exhaustive)
    if case == "vainf deeplabv3"
    else case
    for case in CASES
  ],
)
def test_gradients_equal_the_originals(case):
  name, library, build_original, own, _ = CASES[case]
  original = originals.randomised(build_original())
  assert gradient_difference(name, library, original, own, (33, 41)) < 1e-3


@needs_smp
@pytest.mark.slow
@pytest.mark.parametrize("case", ["Unet resnet34", "DeepLabV3Plus resnet50"])
def test_gradients_equal_segmentation_models_pytorchs(case):
  name, original, own = smp_case(case)
  assert gradient_difference(name, "smp", original, own, (32, 64)) < 1e-3


def test_no_nan_is_lost():
  for values in ([np.nan, 1.0], [1.0, np.nan], [0.5, np.nan, 2.0]):
    assert np.isnan(parity.largest(values))
  ours = {"a": np.ones(2), "b": np.full(2, np.nan), "c": np.ones(2)}
  theirs = {"a": np.ones(2), "b": np.ones(2), "c": np.zeros(2)}
  assert np.isnan(parity.largest_difference(ours, theirs))
  assert np.isnan(parity.largest_difference(theirs, ours))
