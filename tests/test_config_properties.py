"""Any configuration ends in one line, or in a run of one training step.

Values are drawn from the rules themselves and from just outside of them.
"""

import copy
import functools
import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import jax
from ml_collections import ConfigDict
import pytest

from config_files import CONFIGS, load_module
from jaxseg import config_check, sharding
from jaxseg.config_rules import (
  Choice,
  Either,
  Flag,
  Many,
  Named,
  Nothing,
  Number,
  Pattern,
  Row,
  Text,
  Whole,
)
from jaxseg.errors import UserError
from jaxseg.evaluation import scoring
from jaxseg.training import loop, setup
from jaxseg.training.state import create_state
from jaxseg.training.step import train_step

# Examples are the same in every run; none are stored.
SAME = settings(
  derandomize=True,
  database=None,
  deadline=None,
  suppress_health_check=list(HealthCheck),
)
RULES = config_check.FIELDS


@functools.singledispatch
def inside(rule):
  """Returns a strategy of values that a rule accepts."""
  raise NotImplementedError(rule)


@inside.register
def _(rule: Number):
  return st.floats(
    max(rule.low, -1e6),
    min(rule.high, 1e6),
    exclude_min=rule.above,
    exclude_max=rule.below,
  )


@inside.register
def _(rule: Whole):
  high = rule.low + 40 if rule.high is None else rule.high
  return st.integers(rule.low, high)


@inside.register
def _(rule: Choice):
  return st.sampled_from(rule.names)


@inside.register
def _(rule: Flag):
  return st.booleans()


@inside.register
def _(rule: Text):
  word = st.text("abc:{}1", min_size=1, max_size=4)
  return st.one_of(st.just(""), word) if rule.empty else word


@inside.register
def _(rule: Pattern):
  return st.sampled_from(["bias$", "^head/", "(a|b)", ""])


@inside.register
def _(rule: Many):
  lengths = rule.lengths or range(0 if rule.empty else 1, 4)
  element = inside(rule.rule)
  lists = [
    st.lists(element, min_size=n, max_size=n, unique=rule.distinct)
    for n in lengths
  ]
  return st.one_of(lists).map(tuple)


@inside.register
def _(rule: Row):
  return st.tuples(*map(inside, rule.rules))


@inside.register
def _(rule: Named):
  names = st.sampled_from(["logits", "aux_logits", "logit"])
  return st.dictionaries(names, inside(rule.rule), min_size=1)


@inside.register
def _(rule: Either):
  return st.one_of(*map(inside, rule.rules))


@inside.register
def _(rule: Nothing):
  return st.none()


def edges(rule):
  """Returns values at the ends of a rule and just outside of them."""
  if isinstance(rule, Number):
    ends = [end for end in (rule.low, rule.high) if abs(end) < math.inf]
    return [*ends, *(end - 1 for end in ends), *(end + 1 for end in ends)]
  if isinstance(rule, Whole):
    return [rule.low, rule.low - 1, (rule.high or rule.low) + 1]
  if isinstance(rule, Many):
    inner = [(value,) for value in edges(rule.rule)]
    return [*inner, *(value * 2 for value in inner), *(v * 3 for v in inner)]
  return []


ODD = st.sampled_from(
  [math.nan, math.inf, -math.inf, -1, 0, 1e300, 2**70, 10**400, True, None, "",
   "(", "b" * 500, "two\nlines", (), ((),), ("a", "a"), (1, "a"), (math.nan,),
   {}, {"logits": "a"}, b"bytes", [1, 2], 1j, object]
)  # fmt: skip


def around(rule):
  """Returns a strategy of values inside of a rule and outside of it."""
  return st.one_of(inside(rule), st.sampled_from(edges(rule) or [None]), ODD)


@functools.cache
def tiny():
  """Returns the fields of a network that trains within milliseconds."""
  path = CONFIGS.parent / "tests" / "tiny_pspnet.py"
  return load_module(path).get_config("folder").to_dict()


def changed(values) -> ConfigDict:
  """Returns the tiny configuration with other values."""
  tree = copy.deepcopy(tiny())
  for name, value in values.items():
    *sections, field = name.split(".")
    part = functools.reduce(lambda part, key: part[key], sections, tree)
    part[field] = value
  return ConfigDict(tree)


def model_rules():
  """Returns the rules of the fields of the tiny network and its backbone."""
  names = [name for name, _ in config_check.leaves(ConfigDict(tiny()))]
  known = config_check.NETWORK_FIELDS
  return {
    name: known[name.rpartition(".")[2]]
    for name in names
    if name.startswith("model.") and name.rpartition(".")[2] in known
  }


def some(rules, strategy, count):
  """Returns a strategy of dicts with values of at most `count` fields."""
  fields = st.sampled_from(sorted(rules))
  return st.lists(fields, max_size=count, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
      {name: strategy(rules[name]) for name in names}
    )
  )


def check(config) -> bool:
  """Returns whether a configuration passes; a refusal must be one line."""
  try:
    config_check.check(config)
  except UserError as error:
    text = str(error)
    assert "\n" not in text and len(text) < 600, text
    return False
  return True


@settings(SAME, max_examples=300)
@given(some({**RULES, **model_rules()}, around, 3))
def test_every_value_passes_or_is_refused_in_one_line(values):
  check(changed(values))


@settings(SAME, max_examples=100)
@given(st.sampled_from(sorted(RULES)), st.data())
def test_a_rule_accepts_what_it_describes(name, data):
  value = data.draw(inside(RULES[name]))
  assert RULES[name].accepts(value), RULES[name].expected


def sides(high):
  return st.tuples(st.integers(1, high), st.integers(1, high))


# Fields of which large values only take time.
SMALL = {
  "augment.crop": sides(40),
  "augment.elastic_grid": sides(5),
  "augment.elastic_std": st.floats(0, 20),
  "data.canvas": sides(40),
  "eval.batch_size": st.integers(1, 6),
  "eval.canvas": st.one_of(st.just(()), sides(40)),
  "eval.dropout_samples": st.integers(0, 2),
  "eval.scales": st.sampled_from([(1.0,), (0.5, 1.2)]),
  "eval.stride": st.floats(0.4, 1),
  "loss.border_std": st.floats(0.1, 4),
  "loss.label_stride": st.integers(1, 4),
  "optimizer.accumulate": st.integers(1, 3),
  "train.batch_size": st.integers(1, 4),
  "train.norm_batches": st.integers(0, 2),
  "train.picture_count": st.integers(0, 3),
  "train.steps": st.just(1),
  "model.backbone.stage_sizes": st.lists(st.integers(1, 2), max_size=5).map(
    tuple
  ),
  "model.backbone.width": st.integers(1, 12),
  "model.backbone.groups": st.integers(1, 3),
  "model.backbone.width_per_group": st.integers(1, 80),
  "model.backbone.deformable_stages": st.sampled_from([(), (4,), (9,)]),
}
# Fields that select files, or the data set, for which there are other tests.
FIXED = ("name", "words", "init.", "eval.crf", "data.path", "data.name",
         "data.prepared", "data.loader", "data.train_split", "data.eval_split",
         "data.label_map", "schedule.warmup_steps")  # fmt: skip


def drawn():
  """Returns the rules of the fields that a run of one step draws."""
  rules = {**RULES, **model_rules()}
  return {name: rules[name] for name in rules if not name.startswith(FIXED)}


def a_few(names):
  """Returns a strategy of accepted, small values of some of the fields."""
  rules = drawn()
  values = {
    name: SMALL[name] if name in SMALL else inside(rules[name])
    for name in names
  }
  return st.fixed_dictionaries(values)


def trace_a_run(config):
  """Traces everything that a run computes; compiling takes a minute."""
  mesh = sharding.mesh_for_training(
    config.train.batch_size, config.optimizer.accumulate
  )
  experiment = setup.create(config, mesh)
  state = jax.eval_shape(
    lambda: create_state(
      experiment.model,
      experiment.optimizer,
      jax.random.key(experiment.seed),
      experiment.image_shape,
      ema=experiment.ema_decay > 0,
    )
  )
  step = functools.partial(
    train_step,
    model=experiment.model,
    optimizer=experiment.optimizer,
    task=experiment.task,
    seed=experiment.seed,
    parts=experiment.parts,
    ema_decay=experiment.ema_decay,
  )
  batch = next(loop.train_batches(experiment, mesh, start_step=0))
  state, metrics = jax.eval_shape(step, state, batch)
  assert metrics["loss"].shape == ()
  count_step = scoring.make_count_step(
    experiment.model, experiment.task, experiment.inference
  )
  batch = next(iter(experiment.dataset.eval_batches()))
  jax.eval_shape(count_step, state.variables(), batch)


def is_refused_or(run, values, folder) -> None:
  """Asserts that a configuration is refused in one line, or runs it."""
  config = changed({"optimizer.accumulate": 1, **values})
  config.data.update(path=str(folder), loader="resident")
  config.train.steps = 1
  if not check(config):
    return
  try:
    run(config)
  except UserError as error:
    assert "\n" not in str(error), error


@pytest.mark.slow
@settings(SAME, max_examples=40)
@given(
  values=st.lists(
    st.sampled_from(sorted(drawn())), min_size=3, max_size=6, unique=True
  ).flatmap(a_few)
)
def test_a_configuration_is_refused_or_can_be_traced(values, tiny_folder):
  is_refused_or(trace_a_run, values, tiny_folder)


@pytest.mark.slow
@pytest.mark.parametrize(
  "values",
  [
    {"seed": 2**31 - 1, "dtype": "float16"},
    {"norm.name": "group", "dtype": "bfloat16", "train.batch_size": 1},
    {"augment.crop": (1, 1), "norm.name": "none", "eval.canvas": (1, 1)},
    {"norm.frozen": True, "train.batch_size": 1, "schedule.name": "step"},
  ],
  ids=str,
)
def test_a_configuration_is_refused_or_takes_a_step(
  values, tiny_folder, tmp_path
):
  is_refused_or(
    functools.partial(loop.train, workdir=tmp_path), values, tiny_folder
  )
