"""What holds for every network in `MODELS` that labels pixels."""

import functools
import re

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from config_files import load_config
from jaxseg import data, models, sharding
from jaxseg.analysis import network_shapes, trace_network
from jaxseg.training import setup, step
import overfitting

NETWORKS = sorted(models.MODELS.keys() - {"classifier"})
# Odd sides, even sides, and what each paper, or its code, trains or scores at:
# FCN and hypercolumns whole images of VOC, SMP's U-Net any multiple of 32.
SIZES = [(65, 97), (96, 128)]
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
# Convolutions that give scores, by their names, and offsets.
SCORES_AND_OFFSETS = r"/(classifier|score\w*|fc8|rate\d+(_fc8)?|offset)$"


@functools.cache
def _network(name: str, **fields):
  return models.create(name, num_classes=21, **fields)


def _abstract(name, size, train=False, **fields):
  """Outputs and variables of the network as published, nothing computed."""
  model = _network(name, **fields)
  return network_shapes(model, size, batch=2, train=train)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_float32_at_the_size_of_the_image(name):
  for size in (*SIZES, PAPER_SIZES.get(name, OTHER_PAPERS_SIZE)):
    outputs, _ = _abstract(name, size)
    assert "logits" in outputs
    for key, value in outputs.items():
      assert key == "logits" or key.startswith("aux_")
      assert value.shape == (2, *size, 21), key
      assert value.dtype == jnp.float32, key


@pytest.mark.parametrize("name", NETWORKS)
def test_training_and_evaluation_have_one_tree(name):
  trees = [_abstract(name, SIZES[0], train)[1] for train in (False, True)]
  assert trees[0] == trees[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_submodule_has_a_name(name):
  _, variables = _abstract(name, SIZES[0])
  parts = {
    part
    for path in traverse_util.flatten_dict(variables["params"])
    for part in path
  }
  assert not [part for part in parts if re.fullmatch(r"[A-Z]\w*_\d+", part)]


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_is_computed_in_and_no_gradient_is_stopped(name):
  """In training; variables and logits are float32 as ever.

  Float32 are the convolutions that give scores or offsets, and what resizes
  scores or the image. (A depthwise convolution is a sum of products on CPU,
  and no equation of its own.) Stopping a gradient is in no paper: a skip that
  is read but not learnt through would be stopped.
  """
  model = _network(name, dtype="bfloat16")
  trace = trace_network(model, SIZES[0], batch=2, train=True)
  shapes = (trace.outputs, trace.variables)
  dtypes = {a.dtype for a in jax.tree.leaves(shapes)}
  assert dtypes == {jnp.dtype("float32")}
  wide, narrow = [], []
  for path, equation in trace.equations:
    kind = equation.primitive.name
    # An initialiser does so.
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


@pytest.mark.parametrize("name", NETWORKS)
def test_train_must_be_said(name):
  with pytest.raises(TypeError, match="train"):
    jax.eval_shape(
      _network(name).init, jax.random.key(0), jnp.zeros((1, 65, 97, 3))
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_hashable(name):
  model = models.create(name, num_classes=21)
  assert hash(model) == hash(_network(name)) and model == _network(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_moves_in_real_steps_on_eight_devices(name):
  """Plain gradient steps, so that what has no gradient stays where it is.

  Without momentum, moments, decay and averaging a weight moves by its
  gradient and by nothing else: to the bit, none is no move. Every kernel
  moves in the first and in the last sixth of its input channels. That is where
  a concatenation puts a skip, and no more than any skip has of it: one that
  does not arrive gives none. (Not less, for the sake of channels that a ReLU
  without a norm leaves dead: the first 4 of 32 in FCN-AlexNet.)

  Score layers that begin at zero hold back what lies before them for a step,
  and identity-initialised ones for no longer.
  """
  config = load_config(name, "shapes")
  config.data.loader = "resident"
  config.optimizer.update(
    name="sgd", momentum=0.0, weight_decay=0.0, learning_rate=0.1,
    multipliers=(), no_decay=(), ema_decay=0.0, clip_norm=1.0,
  )  # fmt: skip
  config.schedule.update(name="constant", warmup_steps=0)
  config = data.resolve(config)
  mesh = sharding.make_mesh()
  assert mesh.size == 8
  model, optimizer, _, state = setup.start(config, mesh)
  before = traverse_util.flatten_dict(jax.device_get(state.params), sep="/")
  batch = sharding.global_batch(overfitting.draw_batch(range(8)), mesh)
  train_step = jax.jit(
    functools.partial(
      step.train_step,
      model=model,
      optimizer=optimizer,
      recipe=step.Recipe.from_config(config),
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
  """The first and the last sixth of its input channels, one or more."""
  # A depthwise kernel has them last.
  axis = -2 if kernel.shape[-2] > 1 else -1
  channels = np.moveaxis(kernel, axis, 0)
  share = max(len(channels) // 6, 1)
  return channels[:share], channels[-share:]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_learns_four_images_by_heart(name):
  assert overfitting.overfit(name) > 0.95
