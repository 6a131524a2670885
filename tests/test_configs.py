"""Every configuration with every data preset loads, locks and builds."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from config_files import CONFIGS, load_config, load_module
from jaxseg import config as configs
from jaxseg import tasks
from jaxseg.data.datasets import DATASETS
from jaxseg.errors import UserError
from jaxseg.runs.run import create_model
from jaxseg.training import optimizers, step
from jaxseg.training.state import create_state

FILES = sorted(CONFIGS.glob("*.py"))


# Every network in its narrow and in its published form; the other presets
# differ from the second in sizes alone.
SHOWN = ("shapes", "camvid")


def cases() -> list:
  """Each file with each preset, and each of its variants with CamVid."""
  found = []
  for path in FILES:
    module = load_module(path)
    for preset in configs.DATA_PRESETS:
      marks = [] if preset in SHOWN else [pytest.mark.slow]
      found.append((path, preset, marks))
    for variant in getattr(module, "VARIANTS", ()):
      found.append((path, f"camvid,{variant}", [pytest.mark.slow]))
  return [
    pytest.param(path, arg, id=f"{path.stem}:{arg}", marks=marks)
    for path, arg, marks in found
  ]


def resolved(path: Path, arg: str):
  """The configuration, with what would come from the data set filled in."""
  config = load_config(path.stem, arg)
  spec = DATASETS[config.data.name]
  with config.unlocked():
    config.data.class_names = spec.class_names or tuple("abcdefg")
    config.data.mean = tuple(config.data.mean) or spec.mean
    config.data.std = tuple(config.data.std) or spec.std
  return config


def one_step(config, image_size):
  """A step function of (state, batch), and the shapes of both."""
  model = create_model(config)
  key = jax.random.key(0)
  n, (h, w) = config.train.batch_size, image_size
  params = jax.eval_shape(
    lambda: model.init(key, jnp.zeros((1, h, w, 3)), train=False)
  )["params"]
  rate = optimizers.schedule(config.schedule, peak=0.1, steps=10)
  optimizer = optimizers.create(config.optimizer, rate, params)
  state = jax.eval_shape(
    lambda: create_state(
      model,
      optimizer,
      key,
      (1, h, w, 3),
      ema=config.optimizer.ema_decay > 0,
    )
  )
  task = tasks.create(config)
  batch = {
    "image": jax.ShapeDtypeStruct((n, h, w, 3), jnp.uint8),
    "label": jax.ShapeDtypeStruct((n, h, w), jnp.uint8),
    "size": jax.ShapeDtypeStruct((n, 2), jnp.int32),
    "index": jax.ShapeDtypeStruct((n,), jnp.int32),
  }
  run = functools.partial(
    step.train_step, model=model, optimizer=optimizer, task=task
  )
  return run, state, batch


@pytest.mark.parametrize("path,arg", cases())
def test_every_config_loads_locks_and_builds(path, arg):
  """A step is traced, not run: at full size, in a second."""
  config = resolved(path, arg)
  assert config.is_locked
  assert config.name == path.stem
  assert config.data.name == arg.split(",")[0]
  run, state, batch = one_step(config, config.data.canvas)
  after, measured = jax.eval_shape(run, state, batch)
  assert jax.tree.leaves(state.params)
  assert after == state
  assert measured["loss"].shape == ()


@pytest.mark.slow
@pytest.mark.parametrize(
  "preset", sorted(configs.DATA_PRESETS.keys() - {"shapes"})
)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_config_takes_a_step(path, preset):
  """The published networks with CamVid, on two small images.

  With the other presets the narrow networks of `shapes` take it, with the
  recipe of the preset: what compiles in seconds. The laws over all networks
  take steps of `shapes` itself.
  """
  config = resolved(path, preset)
  if preset not in SHOWN:
    with config.unlocked():
      config.model = load_config(path.stem, "shapes").model
  config.train.batch_size = 2
  config.augment.update(crop=(96, 96), scale=(1.0, 1.0))
  run, state, batch = one_step(config, (96, 96))
  rng = np.random.default_rng(0)
  classes = len(config.data.class_names)
  # Weights that scores shrink in, and grow in never: no draw of 250 million.
  state = jax.tree.map(lambda a: jnp.full(a.shape, 1e-3, a.dtype), state)
  state = state.replace(step=jnp.zeros((), jnp.int32))
  batch = {
    "image": jnp.asarray(rng.integers(0, 256, batch["image"].shape, np.uint8)),
    "label": jnp.asarray(
      rng.integers(0, classes, batch["label"].shape, np.uint8)
    ),
    "size": jnp.full((2, 2), 96, jnp.int32),
    "index": jnp.arange(2, dtype=jnp.int32),
  }
  after, measured = jax.jit(run, donate_argnums=0)(state, batch)
  assert after.step == 1
  assert np.isfinite(measured["loss"]) and measured["loss"] > 0
  assert np.isfinite(measured["gradient_norm"])
  assert measured["gradient_norm"] > 0
  for where, value in jax.tree.leaves_with_path(after.params):
    assert jnp.isfinite(value).all(), jax.tree_util.keystr(where)


@pytest.mark.parametrize(
  "arg", ["camvid,cascade,torchvision", "camvid,torchvision,finetune"]
)
def test_deeplab_v3_refuses_variants_that_exclude_each_other(arg):
  with pytest.raises(UserError, match="leave out one"):
    load_config("deeplab_v3", arg)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_field_exists_in_the_base(path):
  config = load_config(path.stem)
  base = configs.base()
  for section in config:
    assert section in base
    # Each file brings its own network's fields and heads.
    if section in ("model", "norm") or not hasattr(config[section], "keys"):
      continue
    assert set(config[section]) == set(base[section]), section


def test_lists_never_appear_where_tuples_must():
  def walk(value):
    assert not isinstance(value, list)
    if isinstance(value, dict):
      for item in value.values():
        walk(item)

  for path in FILES:
    walk(load_config(path.stem).to_dict())


def test_a_misspelt_preset_says_which_exist():
  with pytest.raises(UserError, match="did you mean 'camvid'"):
    configs.parse_arg("camvd")
