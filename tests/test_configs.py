"""Every configuration with every data preset loads, locks and builds."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxseg import config as configs
from jaxseg import models
from jaxseg.errors import UserError

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def load(path: Path, arg: str):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg), module


def cases() -> list:
  return list(_cases())


def _cases():
  for path in FILES:
    _, module = load(path, "")
    for preset in configs.DATA_PRESETS:
      yield pytest.param(path, preset, id=f"{path.stem}:{preset}")
      for variant in getattr(module, "VARIANTS", ()):
        arg = f"{preset},{variant}"
        yield pytest.param(path, arg, id=f"{path.stem}:{arg}")


@pytest.mark.parametrize("path,arg", cases())
def test_every_config_loads_locks_and_builds(path, arg):
  config, _ = load(path, arg)
  assert config.is_locked
  assert config.name == path.stem
  assert config.data.name == arg.split(",")[0]
  fields = config.model.to_dict()
  model = models.create(
    fields.pop("name"),
    num_classes=7,
    dtype=config.dtype,
    **fields,
  )
  h, w = config.augment.crop
  image = jax.ShapeDtypeStruct((2, h, w, 3), jnp.float32)
  key = jax.random.key(0)
  outputs, variables = jax.eval_shape(
    lambda image: model.init_with_output(key, image, train=False), image
  )
  assert set(config.loss.heads) <= set(outputs)
  assert variables["params"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_field_exists_in_the_base(path):
  config, _ = load(path, "")
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
    walk(load(path, "")[0].to_dict())


def test_a_misspelt_preset_says_which_exist():
  with pytest.raises(UserError, match="did you mean 'camvid'"):
    configs.parse_arg("camvd")
