"""Laws that hold for every network in `MODELS` that labels pixels."""

import functools
import re

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from config_files import load_config
from jaxseg import models, sharding
from jaxseg.analysis import network_shapes, trace_network
from jaxseg.training import setup, step
import overfitting

NETWORKS = sorted(models.MODELS.keys() - {"classifier"})
ODD, EVEN = (65, 97), (96, 128)
# Image size at which each paper, or its code, trains or scores: whole images of
# VOC for FCN and hypercolumns, any multiple of 32 for SMP's U-Net.
PAPER_SIZES = {
  "bayesian_segnet": (360, 480),
  "deconvnet": (224, 224),
  "deeplab_v1": (321, 321),
  "deeplab_v2": (321, 321),
  "deeplab_v3": (513, 513),
  "deeplab_v3plus": (513, 513),
  "deformable_deeplab": (768, 1024),
  "dilatednet": (500, 500),
  "fc_densenet56": (360, 480),
  "fc_densenet67": (360, 480),
  "fc_densenet103": (360, 480),
  "fcn_resnet": (520, 520),
  "pspnet": (473, 473),
  "segnet": (360, 480),
  "segnet_basic": (360, 480),
  "unet": (512, 512),
  "unet_backbone": (384, 480),
}
OTHER_PAPERS_SIZE = (500, 375)
# Names of the convolutions that give scores or offsets.
SCORES_AND_OFFSETS = r"/(classifier|score\w*|fc8|rate\d+(_fc8)?|offset)$"


# Networks of the same class as another one, from which they differ by a number
# of layers, a scale or a dropout.
SIBLINGS = {
  "bayesian_segnet", "fc_densenet67", "fc_densenet103", "fcn_16s", "fcn_32s",
  "fcn_8s_at_once",
}  # fmt: skip
each_kind = pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.exhaustive)
    if name in SIBLINGS
    else name
    for name in NETWORKS
  ],
)


@pytest.fixture(scope="module", params=NETWORKS)
def name(request) -> str:
  """Returns the name of a network.

  All tests of one network run in sequence, so that they share its traces.
  """
  return request.param


def _network(name: str, **fields):
  return models.create(name, num_classes=21, **fields)


@functools.lru_cache(maxsize=4)
def _shapes(name, size):
  """Returns the shapes of outputs and variables of the published network."""
  return network_shapes(_network(name), size, batch=2)


@functools.lru_cache(maxsize=1)
def _training_in_bfloat16(name):
  return trace_network(
    _network(name, dtype="bfloat16"), ODD, batch=2, train=True
  )


def test_logits_are_float32_at_the_size_of_the_image(name):
  """The sizes are an odd one, an even one and the paper's."""
  paper = PAPER_SIZES.get(name, OTHER_PAPERS_SIZE)
  sizes = {ODD, paper}
  if all(side % 2 for side in paper):
    sizes.add(EVEN)
  for size in sizes:
    outputs, _ = _shapes(name, size)
    assert "logits" in outputs
    for key, value in outputs.items():
      assert key == "logits" or key.startswith("aux_")
      assert value.shape == (2, *size, 21), key
      assert value.dtype == jnp.float32, key


def test_training_and_evaluation_have_one_tree(name):
  """The dtype of the computation does not matter, either."""
  _, variables = _shapes(name, ODD)
  assert _training_in_bfloat16(name).variables == variables


def test_every_submodule_has_a_name(name):
  _, variables = _shapes(name, ODD)
  parts = {
    part
    for path in traverse_util.flatten_dict(variables["params"])
    for part in path
  }
  assert not [part for part in parts if re.fullmatch(r"[A-Z]\w*_\d+", part)]


def test_training_computes_in_bfloat16_and_stops_no_gradient(name):
  """Variables and logits stay float32.

  Convolutions that give scores or offsets, and matrix products that resize
  scores or the image, are computed in float32. (A depthwise convolution is a
  sum of products on CPU and has no equation of its own.) No paper stops a
  gradient; a stopped gradient would be a skip that is read and never trained.
  """
  trace = _training_in_bfloat16(name)
  shapes = (trace.outputs, trace.variables)
  dtypes = {a.dtype for a in jax.tree.leaves(shapes)}
  assert dtypes == {jnp.dtype("float32")}
  wide, narrow = [], []
  for path, equation in trace.equations:
    kind = equation.primitive.name
    # Only the initialiser of a truncated normal stops a gradient.
    assert kind != "stop_gradient" or "truncated_normal" in path, path
    if kind not in ("conv_general_dilated", "dot_general"):
      continue
    operands = [value.aval for value in equation.invars]
    exact = re.search(SCORES_AND_OFFSETS, path) is not None
    if all(a.dtype == jnp.bfloat16 for a in operands):
      assert not exact, path
      narrow.append(path)
    elif kind == "conv_general_dilated":
      if not exact:
        wide.append(path)
    elif not any(a.ndim > 2 and a.shape[-1] in (3, 21) for a in operands):
      wide.append(path)
  assert narrow and not wide


def test_train_is_a_required_argument(name):
  with pytest.raises(TypeError, match="train"):
    jax.eval_shape(
      _network(name).init, jax.random.key(0), jnp.zeros((1, 65, 97, 3))
    )


def test_networks_are_hashable(name):
  model = models.create(name, num_classes=21)
  assert hash(model) == hash(_network(name)) and model == _network(name)


@pytest.mark.slow
@each_kind
def test_every_parameter_moves_in_real_steps_on_eight_devices(name):
  """Three steps of plain gradient descent change every parameter.

  Without momentum, weight decay and averaging, a weight changes by its
  gradient alone; a zero gradient leaves it equal to the bit. Every kernel
  changes in the first and in the last sixth of its input channels, where a
  concatenation puts a skip: a skip that is not connected changes none of them.
  (A smaller share would fail on channels that a ReLU without a norm leaves
  dead, the first 4 of 32 in FCN-AlexNet.)

  A score layer that begins at zero passes no gradient to earlier layers in the
  first step, so one step would not be enough.
  """
  config = load_config(name)
  config.data.loader = "resident"
  config.eval.batch_size = 8
  config.optimizer.update(
    name="sgd", momentum=0.0, weight_decay=0.0, learning_rate=0.1,
    multipliers=(), no_decay=(), ema_decay=0.0, clip_norm=1.0,
  )  # fmt: skip
  config.schedule.update(name="constant", warmup_steps=0)
  mesh = sharding.make_mesh()
  assert mesh.size == 8
  experiment = setup.create(config, mesh)
  state = experiment.fresh_state(mesh)
  before = traverse_util.flatten_dict(jax.device_get(state.params), sep="/")
  batch = sharding.global_batch(overfitting.draw_batch(range(8)), mesh)
  train_step = jax.jit(
    functools.partial(
      step.train_step,
      model=experiment.model,
      optimizer=experiment.optimizer,
      task=experiment.task,
      seed=experiment.seed,
    )
  )
  for _ in range(3):
    state, measured = train_step(state, batch)
    assert np.isfinite(measured["loss"])
  after = traverse_util.flatten_dict(jax.device_get(state.params), sep="/")
  moved = {path: after[path] != value for path, value in before.items()}
  assert not [path for path, value in moved.items() if not value.any()]
  kernels = [path for path in moved if path.endswith("kernel")]
  ends = {path: _ends_of_input(moved[path]) for path in kernels}
  assert not [path for path, end in ends.items() if not all(map(np.any, end))]


def _ends_of_input(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the first and the last sixth of the input channels."""
  # The input channels of a depthwise kernel are its last axis.
  axis = -2 if kernel.shape[-2] > 1 else -1
  channels = np.moveaxis(kernel, axis, 0)
  share = max(len(channels) // 6, 1)
  return channels[:share], channels[-share:]


@pytest.mark.slow
@each_kind
def test_overfits_four_images(name):
  assert overfitting.overfit(name) > 0.95
