"""Every config file, with every word, loads, locks and builds."""

import ast
import functools
import io
from pathlib import Path
import statistics
import tokenize

from absl import flags
import jax
import jax.numpy as jnp
from ml_collections import config_flags
import numpy as np
import pytest

from config_files import CONFIGS, load_config, load_module
from jaxseg import config as configs
from jaxseg import models, sharding, tasks
from jaxseg.data import survey
from jaxseg.data.datasets import DATASETS
from jaxseg.errors import UserError
from jaxseg.runs.network import create_model
from jaxseg.training import optimizers, step
from jaxseg.training.state import create_state

FILES = sorted(CONFIGS.glob("*.py"))
# The narrow and the published network; with other data they differ in sizes.
SHOWN = ("shapes,small", "camvid")


def marks(path: Path, arg: str) -> list:
  """Returns when a configuration is built: always, by CI, or by hand.

  Presets differ in the sizes of images and the number of classes, so the other
  presets are built for one network alone.
  """
  if arg == "camvid":
    # The large FC-DenseNets are the class of the small one.
    is_large = path.stem in ("fc_densenet67", "fc_densenet103")
    return [pytest.mark.slow] if is_large else []
  if arg in SHOWN or path.stem == "pspnet":
    return [pytest.mark.slow]
  if arg.startswith("camvid,"):
    return [pytest.mark.slow]
  return [pytest.mark.exhaustive]


def cases() -> list:
  """Returns each file with each data preset, and each of its words."""
  found = []
  for path in FILES:
    words = load_module(path).WORDS
    for preset in configs.DATA_PRESETS:
      found.append((path, preset))
      found.append((path, f"{preset},small"))
    found += [(path, f"camvid,{word}") for word in words if word != "small"]
  return [
    pytest.param(path, arg, id=f"{path.stem}:{arg}", marks=marks(path, arg))
    for path, arg in found
  ]


def resolved(path: Path, arg: str):
  """Returns a configuration with the fields that the data set fills in."""
  config = load_config(path.stem, arg)
  spec = DATASETS[config.data.name]
  with config.unlocked():
    config.data.canvas = config.data.canvas or survey.choose_canvas(
      [(375, 500)], config.data.largest_canvas
    )
    config.augment.crop = config.augment.crop or survey.choose_crop(
      config.data.canvas, config.data.largest_crop
    )
    config.data.class_names = spec.class_names or tuple("abcdefg")
    config.data.mean = tuple(config.data.mean) or spec.mean
    config.data.std = tuple(config.data.std) or spec.std
  return config


def one_step(config, image_size):
  """Returns a step function of (state, batch), and the shapes of both."""
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
    step.train_step,
    model=model,
    optimizer=optimizer,
    task=task,
    parts=config.optimizer.accumulate,
  )
  return run, state, batch


@pytest.mark.parametrize("path,arg", cases())
def test_every_config_loads_locks_and_builds(path, arg):
  """A step is traced at full size, which takes a second, and not run."""
  config = resolved(path, arg)
  assert config.is_locked
  assert config.name == path.stem
  assert config.words == tuple(arg.split(","))
  assert config.data.name == config.words[0]
  run, state, batch = one_step(config, config.data.canvas)
  after, measured = jax.eval_shape(run, state, batch)
  assert jax.tree.leaves(state.params)
  assert after == state
  assert measured["loss"].shape == ()


@pytest.mark.parametrize(
  ("arg", "canvas", "crop", "scale"),
  [
    ("pspnet:folder", (384, 512), (384, 384), (0.5, 2.0)),
    ("pspnet:folder,small", (384, 512), (128, 128), (0.5, 2.0)),
    ("pspnet:folder,small,caffe", (384, 512), (128, 128), (0.5, 2.0)),
    ("pspnet:folder,laptop", (192, 224), (192, 224), (0.7, 1.8)),
    ("segnet_basic:folder,laptop", (192, 224), (192, 224), (1.0, 1.0)),
    ("fc_densenet56:folder,laptop", (192, 224), (192, 224), (0.8, 1.4)),
    ("deeplab_v3plus:folder", (384, 512), (513, 513), (0.5, 2.0)),
    ("deeplab_v3plus:folder,laptop", (192, 224), (192, 224), (0.7, 1.8)),
    ("unet:folder", (384, 512), (384, 388), (0.5, 2.0)),
    ("unet:folder,laptop", (384, 512), (256, 256), (0.5, 2.0)),
    ("fcn_8s:folder", (384, 512), (384, 512), (1.0, 1.0)),
    ("fcn_8s:folder,small", (384, 512), (128, 128), (1.0, 1.0)),
  ],
)
def test_sizes_for_a_folder_of_photographs(arg, canvas, crop, scale):
  """Images of 375x500; laptop has as many pixels as CamVid's 184x240."""
  name, words = arg.split(":")
  config = resolved(CONFIGS / f"{name}.py", words)
  assert config.data.canvas == canvas
  assert config.augment.crop == crop
  assert config.augment.scale == scale
  assert config.eval.scales == (1.0,)


def test_every_recipe_trains_on_one_to_eight_devices(monkeypatch):
  recipes = set()
  for path in FILES:
    for arg in (*configs.DATA_PRESETS, "shapes,small"):
      c = load_config(path.stem, arg)
      recipes.add((c.train.batch_size, c.optimizer.accumulate))
  devices = jax.devices()
  for count in range(1, 9):
    monkeypatch.setattr(
      jax, "devices", functools.partial(devices.__getitem__, slice(count))
    )
    for size, parts in sorted(recipes):
      mesh = sharding.mesh_for_training(size, parts)
      assert size // parts % mesh.size == 0


def step_cases() -> list:
  """Returns each file with each preset whose step is run.

  The laws over all networks take steps with the default words. CI takes them
  with the narrow networks and CamVid's recipe, and with every preset for one
  network.
  """
  found = []
  for path in FILES:
    for preset in sorted(configs.DATA_PRESETS.keys() - {"shapes"}):
      in_ci = preset == "camvid" or path.stem == "pspnet"
      found.append((path, f"{preset},small", "slow" if in_ci else "exhaustive"))
    found.append((path, "camvid", "exhaustive"))
  return [
    pytest.param(
      path, arg, id=f"{path.stem}:{arg}", marks=getattr(pytest.mark, mark)
    )
    for path, arg, mark in found
  ]


@pytest.mark.parametrize("path,arg", step_cases())
def test_every_config_takes_a_step(path, arg):
  """Narrow and published networks take a step on two small images."""
  config = resolved(path, arg)
  config.train.batch_size = 2
  config.optimizer.accumulate = 1
  config.augment.update(crop=(96, 96), scale=(1.0, 1.0))
  run, state, batch = one_step(config, (96, 96))
  rng = np.random.default_rng(0)
  classes = len(config.data.class_names)
  # Constant weights shrink the scores, and need no 250 million random draws.
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
  ("name", "arg"),
  [
    ("pspnet", "camvid,folder"),
    ("pspnet", "folder,small,laptop"),
    ("pspnet", "laptop"),  # On shapes, the default preset.
    ("pspnet", "camvid,small,resnet101"),
    ("pspnet", "camvid,resnet50,resnet101"),
    ("deeplab_v2", "camvid,vgg,resnet50"),
    ("deeplab_v3", "camvid,cascade,torchvision"),
    ("deeplab_v3", "camvid,torchvision,finetune"),
    ("deeplab_v3", "camvid,small,finetune"),
    ("unet", "camvid,released,milesial"),
  ],
)
def test_words_that_exclude_each_other_are_refused(name, arg):
  with pytest.raises(UserError, match="exclude each other") as error:
    load_config(name, arg)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("word", "meant"),
  [("camvd", "camvid"), ("labtop", "laptop"), ("resnet51", "resnet50")],
)
def test_a_misspelt_word_is_refused_with_the_likely_one(word, meant):
  with pytest.raises(UserError, match=f"did you mean '{meant}'"):
    load_config("pspnet", f"camvid,{word}")


def test_words_have_one_order():
  expected = ("camvid", "laptop", "multi_scale")
  for arg in ("laptop,camvid,multi_scale", " multi_scale, laptop,camvid"):
    assert load_config("pspnet", arg).words == expected
  assert load_config("pspnet").words == configs.DEFAULT_WORDS
  assert load_config("pspnet", "caffe").words == ("shapes", "caffe")


def test_the_default_workdir_has_configuration_and_words():
  workdirs = {
    arg: configs.default_workdir(load_config("pspnet", arg))
    for arg in ("", "camvid,laptop", "camvid,resnet101")
  }
  assert workdirs == {
    "": "runs/pspnet-shapes-small",
    "camvid,laptop": "runs/pspnet-camvid-laptop",
    "camvid,resnet101": "runs/pspnet-camvid-resnet101",
  }


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_shapes_selects_data_alone(path):
  """Without `small` it has the network of the other presets."""
  narrow = load_config(path.stem).model
  networks = [load_config(path.stem, p).model for p in ("shapes", "camvid")]
  assert networks[0] == networks[1] != narrow


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_field_exists_in_the_base(path):
  base = configs.base()
  for arg in ("", "camvid"):
    config = load_config(path.stem, arg)
    assert set(config) == set(base)
    for section in base:
      # The network has fields and heads of its own.
      if section != "model" and hasattr(base[section], "keys"):
        assert set(config[section]) == set(base[section]), section


def leaves(tree, prefix=""):
  """Yields the dotted name and value of each field in nested dicts."""
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from leaves(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


def another(value):
  """Returns a value of the same type, as a command line spells it."""
  if isinstance(value, bool):
    return str(not value)
  if isinstance(value, int | float):
    return str(value + 1)
  return {str: "other", tuple: "(1, 2)"}.get(type(value), "0.25")


@pytest.mark.parametrize("arg", SHOWN)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_field_of_the_network_can_be_overridden(path, arg):
  config = load_config(path.stem, arg)
  known = dict(leaves(models.fields(path.stem)))
  backbone = config.model.get("backbone", {}).get("name")
  if backbone is not None:
    known = dict(leaves(models.fields(path.stem, backbone=backbone)))
  fields = dict(leaves(config.model.to_dict()))
  assert fields.keys() == known.keys()
  given = {f: another(v) for f, v in fields.items() if "name" not in f}
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_dict(
    "config",
    config,
    flag_values=values,
    sys_argv=["run", *(f"--config.model.{f}={v}" for f, v in given.items())],
  )
  values(["run", *(f"--config.model.{f}={v}" for f, v in given.items())])
  after = dict(leaves(holder.value.model.to_dict()))
  for field, text in given.items():
    assert str(after[field]) == text, field


def test_a_backbone_is_no_override():
  """Its other fields would be those of another backbone."""
  config = load_config("pspnet", "camvid")
  with pytest.raises(UserError, match="camvid,resnet101"):
    config.model.backbone.name = "resnet101"
  backbone = load_config("pspnet", "camvid,resnet101").model.backbone
  assert (backbone.name, backbone.stage_sizes) == ("resnet101", (3, 4, 23, 3))
  assert (backbone.stem, backbone.output_stride) == ("deep", 8)


def test_fields_build_the_papers_network():
  for name in models.MODELS:
    paper = models.create(name, num_classes=21)
    assert models.create(**models.fields(name), num_classes=21) == paper


def test_the_papers_fields_reach_backbones_that_have_them():
  """PSPNet's ResNet has a deep stem; neither DenseNet nor AlexNet has one."""
  for name in ("resnet18", "densenet121", "alexnet"):
    backbone = models.fields("pspnet", backbone=name)["backbone"]
    assert backbone["output_stride"] == 8
    assert ("stem" in backbone) == (name == "resnet18")


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"head_feature": 8}, "field of pspnet.*did you mean 'head_features'"),
    ({"backbone": {"name": "resnet18", "widht": 4}}, "did you mean 'width'"),
    ({"backbone": {"name": "alexnet", "stem": "deep"}}, "field of alexnet"),
    ({"variant": "caffe"}, "field of pspnet 'variant'"),
  ],
)
def test_unknown_fields_are_refused(fields, message):
  with pytest.raises(UserError, match=message):
    models.create("pspnet", num_classes=2, **fields)


def test_unknown_variants_are_refused():
  with pytest.raises(UserError, match="did you mean 'caffe'"):
    models.fields("pspnet", variant="cafe")


def test_lists_never_appear_where_tuples_must():
  def walk(value):
    assert not isinstance(value, list)
    if isinstance(value, dict):
      for item in value.values():
        walk(item)

  for path in FILES:
    walk(load_config(path.stem).to_dict())


def code_lines(path: Path) -> int:
  """Returns the number of lines without docstrings, comments and blanks."""
  text = path.read_text()
  skipped = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
  }
  lines = set()
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type not in skipped:
      lines.update(range(token.start[0], token.end[0] + 1))
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(
      node
    ):
      first = node.body[0]
      lines -= set(range(first.lineno, first.end_lineno + 1))
  return len(lines)


def test_config_files_are_short():
  counts = {path.stem: code_lines(path) for path in FILES}
  assert max(counts.values()) <= 50, counts
  assert statistics.median(counts.values()) <= 25, counts
