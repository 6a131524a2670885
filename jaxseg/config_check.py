"""Checks the values of a configuration.

`FIELDS` has a rule for each field of `config.base()`, and `NETWORK_FIELDS` for
the fields of networks and backbones. `check` also compares fields that depend
on one another. Everything that needs the data or the network is checked where
these are opened and built.
"""

from collections.abc import Iterator
import difflib
import math
from typing import Any

from ml_collections import ConfigDict

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
  Rule,
  Text,
  Whole,
)
from jaxseg.errors import UserError

# Canvases with longer sides do not fit into the memory of any device.
_LONGEST_SIDE = 16384
_SIDES = "(height, width)"
_SIZE = Many(Whole(1, _LONGEST_SIDE), (0, 2), (360, 480), _SIDES)
_COUNT = Whole(1)
_NAME = Text(empty=False)
_SHARE = Number(0, 1)
_DECAY = Number(0, 1, below=True, example=0.9)
# Products of larger numbers overflow in float32.
_LARGEST = 10**6
_NOT_NEGATIVE = Number(0, _LARGEST)
_INTERVAL = Whole(0, hint=" (0 = never)")
_PATTERNS = Many(Pattern(), example=("bias$",))
_RGB = "(red, green, blue)"
_BYTES = "; divide values in 0..255 by 255"

_PAPER = Nothing("the paper's value")

FIELDS: dict[str, Rule] = {
  "name": Text(),
  "words": Many(_NAME),
  "seed": Whole(0, 2**31 - 1),  # An int32 in the compiled step.
  "task": Choice(("segmentation", "classification")),
  "data.name": Choice(("shapes", "camvid", "folder", "isbi_em")),
  "data.path": Text(),
  "data.prepared": _NAME,
  "data.loader": Choice(("tfdata", "resident")),
  "data.canvas": _SIZE,
  "data.largest_canvas": Whole(0, _LONGEST_SIDE, hint=" (0 = any)"),
  "data.largest_crop": Whole(0, _LONGEST_SIDE, hint=" (0 = any)"),
  "data.bits": Whole(0, 16, hint=" (0 = from the data set)"),
  "data.label_map": Text(),
  "data.val_fraction": Number(0, 1, above=True, below=True, example=0.1),
  "data.train_split": _NAME,
  "data.eval_split": _NAME,
  "data.class_names": Many(
    _NAME, example=("background", "cell"), distinct=True
  ),
  "data.palette": Many(
    Many(Whole(0, 255), (3,), order=_RGB), example=((0, 0, 0), (255, 0, 0))
  ),
  "data.ignore_label": Whole(
    0, 65535, example=255, hint="; data.label_map rewrites ids of masks to it"
  ),
  "data.mean": Many(_SHARE, (0, 3), (0.485, 0.456, 0.406), _RGB, hint=_BYTES),
  "data.std": Many(
    Number(1e-6, 1), (0, 3), (0.229, 0.224, 0.225), _RGB, hint=_BYTES
  ),
  "augment.crop": _SIZE,
  "augment.scale": Many(Number(0.01, 100), (2,), (0.5, 2.0), "(low, high)"),
  "augment.flip": Flag(),
  "augment.rotation": Number(0, 180, example=10),
  "augment.elastic_std": Number(0, _LONGEST_SIDE, example=10),
  "augment.elastic_grid": Many(
    Whole(1, _LONGEST_SIDE), (2,), (3, 3), "(rows, columns)"
  ),
  "augment.brightness": Number(0, 100, example=0.3),
  "augment.contrast": Number(0, 100, example=0.3),
  "augment.saturation": Number(0, 100, example=0.3),
  "augment.hue": Number(0, 0.5, example=0.1),
  "loss.heads": Named(_NOT_NEGATIVE, "{'logits': 1.0}"),
  "loss.class_weights": Many(_NOT_NEGATIVE, example=(0.5, 2.0)),
  "loss.balance": Choice(("", "median_frequency")),
  "loss.label_smoothing": Number(0, 1, below=True, example=0.1),
  "loss.normalise_by": Choice(("weight", "count", "images")),
  "loss.label_stride": _COUNT,
  "loss.border_weight": Number(0, _LARGEST, example=10),
  "loss.border_std": Number(0.01, 1000, example=5),
  "optimizer.name": Choice(("sgd", "adamw", "rmsprop")),
  "optimizer.learning_rate": Number(0, _LARGEST, example=0.01),
  "optimizer.momentum": _DECAY,
  "optimizer.nesterov": Flag(),
  "optimizer.b1": _DECAY,
  "optimizer.b2": Number(0, 1, below=True, example=0.999),
  "optimizer.decay_rate": _DECAY,
  "optimizer.epsilon": Number(1e-30, 1, example=1e-8),
  "optimizer.weight_decay": Number(0, _LARGEST, example=1e-4),
  "optimizer.decoupled": Flag(),
  "optimizer.no_decay": _PATTERNS,
  "optimizer.multipliers": Many(
    Row((Pattern(), _NOT_NEGATIVE)), example=(("bias$", 2.0),)
  ),
  "optimizer.clip_norm": Number(0, _LARGEST, hint=" (0 = no clipping)"),
  "optimizer.accumulate": _COUNT,
  "optimizer.ema_decay": Number(
    0, 1, below=True, example=0.99, hint=" (0 = no averaging)"
  ),
  "schedule.name": Choice(
    ("poly", "cosine", "step", "exponential", "constant")
  ),
  "schedule.warmup_steps": Whole(0),
  "schedule.power": Number(0, 100, example=0.9),
  "schedule.end_factor": _SHARE,
  "schedule.step_fractions": Many(
    Number(0, 1, above=True, below=True), example=(0.5, 0.75)
  ),
  "schedule.step_factor": Number(0, 1, example=0.1),
  "schedule.decay_rate": Number(0, 1, above=True, example=0.995),
  "schedule.decay_steps": _COUNT,
  "train.steps": _COUNT,
  "train.batch_size": _COUNT,
  "train.log_every": _INTERVAL,
  "train.norm_batches": Whole(0),
  "train.eval_every": _INTERVAL,
  "train.checkpoint_every": _INTERVAL,
  "train.keep_last": _COUNT,
  "train.picture_count": Whole(0),
  "init.model": Text(),
  "init.backbone": Text(),
  "init.skip": _PATTERNS,
  "init.changed": Many(_NAME, example=("rates",)),
  "eval.batch_size": _COUNT,
  "eval.canvas": _SIZE,
  "eval.mode": Choice(("whole", "sliding")),
  "eval.stride": Number(0, 1, above=True, example=0.67),
  "eval.scales": Many(Number(0.01, 16), example=(0.5, 1.0), empty=False),
  "eval.flip": Flag(),
  "eval.dropout_samples": Whole(0, example=40),
  "eval.crf": Text(),
  "eval.rand": Flag(),
  "eval.absent": Choice(("skip", "zero", "one", "nan")),
  "dtype": Choice(("float32", "bfloat16", "float16")),
  "norm.name": Choice(("paper", "batch", "group", "none")),
  "norm.momentum": Either((_PAPER, Number(0, 1, example=0.9))),
  "norm.epsilon": Either((_PAPER, Number(1e-12, _LARGEST, example=1e-5))),
  "norm.frozen": Flag(),
  "norm.groups": Either((_PAPER, Whole(1, example=32))),
}

_COUNTS = Many(_COUNT, example=(1, 2, 3))
_FACTOR = Number(0, 100, above=True, example=1)
# A backbone whose fields are given is a section, not a value.
_BACKBONE = Text(empty=False)

# Rules by the name of a field, which means the same in every network. A field
# that a network leaves at None may be None. Texts are names that the network
# knows and checks itself.
NETWORK_FIELDS: dict[str, Rule] = {
  **dict.fromkeys(
    ("block_dropout_rate", "dropout_rate", "stochastic_depth"), _DECAY
  ),
  **dict.fromkeys(("depth_mult", "init_deviation", "width_mult"), _FACTOR),
  **dict.fromkeys(
    (
      "aux_features", "bottleneck_layers", "branch3_kernel", "context_layers",
      "decoder_convs", "dilation", "fc_features", "fc_kernel", "groups",
      "growth", "head_features", "head_kernel_size", "kernel_size",
      "low_level_features", "offset_groups", "output_stride", "pool_window",
      "stem_features", "stride", "width", "width_div", "width_per_group",
    ),
    _COUNT,
  ),
  **dict.fromkeys(
    (
      "cascade_blocks", "hidden_features", "middle_blocks",
      "multi_scale_features", "pool_crop",
    ),
    Whole(0),
  ),
  **dict.fromkeys(
    (
      "bins", "block_sizes", "decoder_features", "deformable_stages",
      "down_layers", "dropout_levels", "dropout_stages", "multi_grid", "rates",
      "stage_sizes", "up_features", "widths",
    ),
    _COUNTS,
  ),
  **dict.fromkeys(
    (
      "act_upsampled", "align_corners", "aspp_conv", "aux", "auxiliary",
      "average_pool", "batch_norm", "caffe_init", "ceil_mode", "centre",
      "channel_dropout", "contract_dilation", "dense_pools", "dilate_pools",
      "final_conv", "mirrored", "modulated", "norm_between", "pad_inner",
      "response_norm", "separable_aspp", "separable_decoder", "skip_first",
      "squeeze_excite", "stride_in_1x1", "use_bias",
    ),
    Flag(),
  ),
  "features": Either((_COUNT, _COUNTS)),
  "levels": Many(_NAME, example=("c3", "c5")),
  "padding": Either((Whole(0), Text())),
  "scales": Many(Number(0.01, 16), example=(0.5, 0.75, 1.0)),
  "skip_scales": Many(_NOT_NEGATIVE),
  "stages": Either((_COUNT, Many(_COUNTS))),
}  # fmt: skip


def check(config: ConfigDict, *, training: bool = True) -> None:
  """Checks the fields of a configuration.

  Args:
    config: The whole configuration, complete or not.
    training: Whether to compare fields with one another as well. A run that was
      trained can be evaluated even if another version would refuse to train it.

  Raises:
    UserError: The message names a field with an invalid value, and what was
      expected.
  """
  values = dict(leaves(config))
  for name, rule in FIELDS.items():
    if name not in values:
      raise UserError(f"config.{name} is missing; expected {rule.expected}")
    _check_value(name, values[name], rule)
  for name, value in values.items():
    if name.startswith("model."):
      _check_network_field(name, value)
  _check_path(config)
  if training:
    for problem in _conflicts(config):
      raise UserError(problem)


def leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Yields the dotted name and the value of each field.

  A mapping that is a field, `loss.heads`, is one value.
  """
  for name in config:
    value = config[name]
    if isinstance(value, ConfigDict) and prefix + name != "loss.heads":
      yield from leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def _check_network_field(name: str, value: Any) -> None:
  """Checks a field of the network or of its backbone."""
  if name == "model.backbone":
    _check_value(name, value, _BACKBONE)
  field = name.rpartition(".")[2]
  if field in NETWORK_FIELDS and value is not None:
    _check_value(name, value, NETWORK_FIELDS[field])


def _check_path(config: ConfigDict) -> None:
  """Raises UserError for the path of a data set that reads no files."""
  if config.data.name == "shapes" and config.data.path:
    raise UserError(
      f"data.path={config.data.path!r}: the data set 'shapes' is drawn and "
      "reads no files; train on files by a word after the colon, as in "
      "--config=configs/pspnet.py:folder"
    )


def _check_value(name: str, value: Any, rule: Rule) -> None:
  """Raises UserError if the rule does not accept the value."""
  if rule.accepts(value):
    return
  guess = ""
  if isinstance(rule, Choice):
    close = difflib.get_close_matches(str(value), rule.names, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
  if isinstance(value, ConfigDict):
    value = value.to_dict()
  raise UserError(f"{name}={_short(value)}: expected {rule.expected}{guess}")


def _short(value: Any) -> str:
  """Formats a value in one short line."""
  text = " ".join(repr(value).split())
  return text if len(text) <= 80 else f"{text[:77]}..."


def _conflicts(config: ConfigDict) -> Iterator[str]:
  """Yields a message for each pair of fields that contradict each other."""
  yield from _data_conflicts(config)
  yield from _loss_conflicts(config)
  yield from _training_conflicts(config)
  yield from _norm_conflicts(config)


def _data_conflicts(config: ConfigDict) -> Iterator[str]:
  data, (low, high) = config.data, config.augment.scale
  if low > high:
    yield (
      f"augment.scale={(low, high)}: expected the smallest scale before the "
      f"largest, for example {(high, low)}"
    )
  classes = len(data.class_names)
  for name in ("data.palette", "loss.class_weights"):
    section, field = name.split(".")
    count = len(config[section][field])
    if classes and count and count != classes:
      yield (
        f"{name} has {count} elements for the {classes} classes of "
        "data.class_names; expected one for each class, or () for none"
      )


def _loss_conflicts(config: ConfigDict) -> Iterator[str]:
  loss = config.loss
  if not loss.heads.get("logits", 0):
    yield (
      f"loss.heads={loss.heads.to_dict()}: 'logits' has no weight, but the "
      "predictions are made from them; expected a weight above 0, for example "
      "--config.loss.heads.logits=1.0"
    )
  if loss.class_weights and not any(loss.class_weights):
    yield (
      f"loss.class_weights={loss.class_weights}: expected a weight above 0 for "
      "at least one class"
    )
  if loss.label_stride > min(config.augment.crop, default=math.inf):
    yield (
      f"loss.label_stride={loss.label_stride}: expected at most "
      f"{min(config.augment.crop)}, the shorter side of augment.crop="
      f"{config.augment.crop}"
    )
  if config.task == "classification":
    unused = (
      ("loss.label_stride", loss.label_stride, 1),
      ("loss.border_weight", loss.border_weight, 0.0),
      ("eval.rand", config.eval.rand, False),
      ("eval.crf", config.eval.crf, ""),
    )
    for name, value, default in unused:
      if value != default:
        yield (
          f"{name}={value!r} is for masks, but task='classification' labels "
          f"whole images; expected {default!r}"
        )


def _training_conflicts(config: ConfigDict) -> Iterator[str]:
  optimizer, warmup = config.optimizer, config.schedule.warmup_steps
  if warmup > config.train.steps:
    yield (
      f"schedule.warmup_steps={warmup}: expected at most "
      f"train.steps={config.train.steps}; lower --config.schedule.warmup_steps"
    )
  if optimizer.nesterov and optimizer.name != "sgd":
    yield (
      f"optimizer.nesterov=True: optimizer.name={optimizer.name!r} has no "
      "Nesterov momentum; expected False, or optimizer.name='sgd'"
    )


# Fields of `config.norm` that each norm has. The paper's norm is a batch
# normalisation in every network that has one.
_NORM_FIELDS = {
  "paper": ("momentum", "epsilon", "frozen"),
  "batch": ("momentum", "epsilon", "frozen"),
  "group": ("epsilon", "groups"),
  "none": (),
}


def norm_settings(config: ConfigDict) -> dict[str, Any]:
  """Returns the fields of `config.norm` that are set, without its name."""
  values = {field: config.norm[field] for field in config.norm}
  return {
    field: value
    for field, value in values.items()
    if field != "name" and value is not None and value is not False
  }


def _norm_conflicts(config: ConfigDict) -> Iterator[str]:
  name = config.norm.name
  for field, value in norm_settings(config).items():
    if field not in _NORM_FIELDS[name]:
      having = [key for key, has in _NORM_FIELDS.items() if field in has]
      yield (
        f"norm.{field}={value}: norm.name={name!r} has no such field; leave it "
        f"out, or set --config.norm.name={having[0]}"
      )
  if config.norm.frozen and config.train.norm_batches:
    yield (
      f"train.norm_batches={config.train.norm_batches}: norm.frozen=True keeps "
      "the running averages; set --config.train.norm_batches=0"
    )
