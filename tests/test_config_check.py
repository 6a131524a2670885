"""Every field has a rule, and every mistake ends in one line."""

import copy
import math

from ml_collections import ConfigDict
import pytest

from config_files import CONFIGS, load_config, load_module
from jaxseg import backbones, config_check, losses, metrics, models, tasks
from jaxseg import config as configs
from jaxseg.backbones import BACKBONES
from jaxseg.data.datasets import DATASETS
from jaxseg.errors import UserError
from jaxseg.evaluation import inference
from jaxseg.training import optimizers


def test_every_field_has_a_rule_and_every_rule_a_field():
  fields = dict(config_check.leaves(configs.base()))
  assert {name for name in fields if not name.startswith("model.")} == set(
    config_check.FIELDS
  )


def test_choices_are_those_that_the_code_knows():
  known = {
    "task": tasks.TASKS,
    "data.name": DATASETS,
    "loss.normalise_by": losses.NORMALISERS,
    "optimizer.name": optimizers.OPTIMIZERS,
    "schedule.name": optimizers.SCHEDULES,
    "eval.mode": inference.MODES,
    "eval.absent": metrics.ABSENT,
  }
  for name, choices in known.items():
    assert set(config_check.FIELDS[name].names) == set(choices), name


def test_every_field_of_a_network_but_its_texts_has_a_rule():
  networks = [models.fields(name) for name in models.MODELS]
  for fields in networks + [backbones.fields(name) for name in BACKBONES]:
    for field, value in config_check.leaves(ConfigDict(fields)):
      if not isinstance(value, str):
        assert field.rpartition(".")[2] in config_check.NETWORK_FIELDS, field


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=str)
def test_every_default_of_every_configuration_passes(path):
  words = load_module(path).WORDS
  for preset in configs.DATA_PRESETS:
    config_check.check(load_config(path.stem, preset))
    config_check.check(load_config(path.stem, f"{preset},small"))
  for word in words:
    config_check.check(load_config(path.stem, f"camvid,{word}"))
    config_check.check(load_config(path.stem, f"folder,{word}"))


PSPNET = load_config("pspnet", "folder").to_dict()


def changed(**fields) -> ConfigDict:
  """Returns PSPNet's configuration with other values, whatever their types."""
  tree = copy.deepcopy(PSPNET)
  for name, value in fields.items():
    *sections, last = name.split("__")
    part = tree
    for section in sections:
      part = part[section]
    part[last] = value
  return ConfigDict(tree)


MISTAKES = [
  ("augment__crop", (0, 8)),
  ("augment__crop", (8,)),
  ("augment__crop", (-3, 5)),
  ("augment__scale", (0.0, 1.0)),
  ("augment__scale", (-1.0, 1.0)),
  ("augment__elastic_grid", (0, 3)),
  ("data__canvas", (24.0, 32.0)),
  ("data__class_names", "abc"),
  ("data__class_names", ("a", "a")),
  ("data__class_names", ("a", "")),
  ("data__palette", ((0, 0, 0), (1, 2))),
  ("data__palette", ((0, 0, 256),)),
  ("data__mean", (255.0, 255.0, 255.0)),
  ("data__mean", (-0.1, 0.5, 0.5)),
  ("data__mean", ("a", "b", "c")),
  ("data__std", (0.0, 0.2, 0.2)),
  ("data__val_fraction", 1.0),
  ("train__steps", 0),
  ("train__steps", -5),
  ("train__batch_size", -4),
  ("eval__batch_size", -3),
  ("train__log_every", -1),
  ("train__checkpoint_every", -1),
  ("train__picture_count", -1),
  ("train__keep_last", -1),
  ("optimizer__learning_rate", math.nan),
  ("optimizer__learning_rate", math.inf),
  ("optimizer__learning_rate", -0.1),
  ("optimizer__momentum", 2.0),
  ("optimizer__momentum", 1.0),
  ("optimizer__weight_decay", -1e-4),
  ("optimizer__accumulate", 0),
  ("optimizer__accumulate", True),
  ("optimizer__ema_decay", 2.0),
  ("optimizer__ema_decay", 1.0),
  ("optimizer__clip_norm", -1.0),
  ("optimizer__no_decay", ("(bias",)),
  ("optimizer__no_decay", "bias"),
  ("optimizer__multipliers", ("bias", 2.0)),
  ("optimizer__multipliers", (("bias", "2"),)),
  ("schedule__warmup_steps", -1),
  ("loss__class_weights", (-1.0, 1.0)),
  ("loss__label_smoothing", 2.0),
  ("loss__label_smoothing", -0.1),
  ("loss__label_stride", 0),
  ("loss__border_std", 0.0),
  ("loss__heads", {}),
  ("loss__heads", {"logits": -1.0}),
  ("loss__normalise_by", "weights"),
  ("task", "segmentaton"),
  ("dtype", "float16x"),
  ("dtype", "int8"),
  ("dtype", "float64"),
  ("seed", 2**70),
  ("seed", -1),
  ("seed", 10**400),
  ("eval__scales", ()),
  ("eval__scales", (math.nan,)),
  ("eval__scales", (1e6,)),
  ("init__skip", ("*",)),
  ("norm__name", "instance"),
  ("model__dropout_rate", 2.0),
  ("model__bins", (0, 1)),
  ("model__backbone__width", 0),
  ("model__backbone__stage_sizes", 3),
  ("model__channel_dropout", "perhaps"),
]


def test_a_wrong_value_is_one_line_with_field_value_and_expectation():
  for field, value in MISTAKES:
    # A run that was trained is read with the same rules.
    for training in (True, False):
      with pytest.raises(UserError) as error:
        config_check.check(changed(**{field: value}), training=training)
      text = str(error.value)
      assert text.startswith(f"{field.replace('__', '.')}=")
      assert ": expected " in text
      assert "\n" not in text and len(text) < 300


def test_a_message_in_full():
  with pytest.raises(UserError) as error:
    config_check.check(changed(optimizer__learning_rate=math.nan))
  assert str(error.value) == (
    "optimizer.learning_rate=nan: expected a number from 0 to 1,000,000, "
    "for example 0.01"
  )
  with pytest.raises(UserError, match="did you mean 'segmentation'"):
    config_check.check(changed(task="segmentaton"))


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"schedule__warmup_steps": 40_000}, ["train.steps=30000"]),
    ({"augment__scale": (2.0, 0.5)}, ["(0.5, 2.0)"]),
    ({"loss__heads": {"aux_logits": 1.0}}, ["logits"]),
    ({"loss__class_weights": (0.0, 0.0)}, ["at least one class"]),
    ({"data__class_names": ("a", "b"), "loss__class_weights": (1.0,)},
     ["loss.class_weights has 1", "2 classes"]),
    ({"data__class_names": ("a", "b"), "data__palette": ((1, 2, 3),)},
     ["data.palette has 1", "2 classes"]),
    ({"augment__crop": (321, 321), "loss__label_stride": 1000},
     ["augment.crop=(321, 321)"]),
    ({"optimizer__name": "adamw", "optimizer__nesterov": True}, ["sgd"]),
    ({"task": "classification", "loss__border_weight": 1.0}, ["whole images"]),
    ({"task": "classification", "eval__rand": True}, ["whole images"]),
    ({"norm__groups": 8}, ["norm.name='paper'", "norm.name=group"]),
    ({"norm__frozen": True, "norm__name": "group"}, ["norm.name=paper"]),
    ({"norm__epsilon": 1e-3, "norm__name": "none"}, ["norm.name='none'"]),
    ({"norm__frozen": True, "train__norm_batches": 2}, ["norm_batches=0"]),
  ],
)  # fmt: skip
def test_fields_that_contradict_each_other(fields, words):
  config = changed(**fields)
  config_check.check(config, training=False)
  with pytest.raises(UserError) as error:
    config_check.check(config)
  text = str(error.value)
  assert "\n" not in text and next(iter(fields))[:4] in text
  for word in words:
    assert word in text


@pytest.mark.parametrize(
  ("section", "field", "value"),
  [("data", "path", "photos"), ("model", "backbone", ("resnet50",))],
)
def test_a_trained_run_is_checked_too(section, field, value):
  config = configs.with_data("shapes")
  with config.unlocked():
    config[section][field] = value
  with pytest.raises(UserError, match=f"{section}.{field}=.*{value[0][0]}"):
    config_check.check(config, training=False)


def test_a_missing_field_is_named():
  config = changed()
  del config.train["steps"]
  with pytest.raises(UserError, match="config.train.steps is missing"):
    config_check.check(config)
