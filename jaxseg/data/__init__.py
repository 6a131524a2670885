"""Data: a config in, batches out.

`resolve` reads and checks everything before anything trains and fills in what
only the data know (classes, colours, normalisation). `train_batches` and
`eval_batches` then yield

- `image`: uint8 `[n, h, w, 3]` and `label`: `[n, h, w]`, canonical ids or the
  ignore id, both placed top left on a canvas of one size;
- `size`: int32 `[n, 2]`, height and width of the example on the canvas;
- `index`: int32 `[n]`, its place in the split; -1 is padding.

`config.data.loader` chooses where they come from: "tfdata" prepares record
shards once and streams them through the host, "resident" keeps the whole set
on the device and needs no TensorFlow. Their batches are identical.
"""

from collections.abc import Iterator
import functools
import sys
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from jaxseg.data import audit, datasets, examples, labels, order, sources
from jaxseg.data.datasets import DATASETS, DatasetSpec
from jaxseg.data.placement import Recipe
from jaxseg.errors import UserError, unknown_name

LOADERS = ("tfdata", "resident")
BALANCES = ("", "median_frequency")

# Listing a folder and decoding a set are done once per process. The keys say
# what was read; `resolve` looks at the disk again.
_sources: dict[tuple, sources.Source] = {}
_stores: dict[tuple, Any] = {}


def resolve(config: ConfigDict) -> ConfigDict:
  """A copy whose data fields are complete, after all data were checked.

  Raises:
    UserError: anything about the data that would spoil a training run.
  """
  config = config.copy_and_resolve_references()
  data, spec = config.data, _spec(config)
  _check_fields(config)
  source = _source(config, refresh=True)
  data.eval_split = _eval_split(config, source)
  for split in (data.train_split, data.eval_split):
    _check_split(source, split)
  data.mean, data.std = (
    tuple(data.mean or spec.mean),
    tuple(data.std or spec.std),
  )
  train = _open(config, tuple(data.canvas), data.train_split)
  _open(config, _eval_canvas(config), data.eval_split)
  names = _class_names(config, train.counts, _recipe(config, data.canvas))
  data.class_names = names
  data.palette = _palette(config, spec, len(names))
  if config.loss.balance and not config.loss.class_weights:
    config.loss.class_weights = audit.median_frequency(
      train.counts[data.train_split], len(names)
    )
  _note_absent(train.counts[data.train_split], names)
  return config


def train_batches(
  config: ConfigDict,
  *,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict]:
  """This process's part of global batches start_step, start_step + 1, ...

  Endless. Batch s is the same whatever step the iterator started from.
  """
  size = config.train.batch_size
  share = order.Share("train.batch_size", size, process_index, process_count)
  store = _open(config, tuple(config.data.canvas), config.data.train_split)
  return store.train_batches(
    config.data.train_split,
    seed=config.seed,
    start_step=start_step,
    share=share,
  )


def eval_batches(
  config: ConfigDict,
  split: str,
  *,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict]:
  """This process's part of every batch of a split, each example once.

  Examples come in order; the last global batch is filled up with padding
  (`index` -1, all labels ignored).
  """
  size = config.eval.batch_size
  share = order.Share("eval.batch_size", size, process_index, process_count)
  store = _open(config, _eval_canvas(config), split)
  return store.eval_batches(split, share=share)


def num_examples(config: ConfigDict, split: str) -> int:
  """How many examples a split has."""
  source = _source(config)
  _check_split(source, split)
  return len(source.splits[split])


def example_name(config: ConfigDict, split: str, index: int) -> str:
  """What to call example `index` in messages: its image's path."""
  source = _source(config)
  _check_split(source, split)
  return source.name(split, index)


def class_pixels(config: ConfigDict, split: str) -> np.ndarray:
  """Pixels of each class in the masks of a split, int64 `[k]`."""
  store = _open(config, tuple(config.data.canvas), split)
  counts = store.counts[split]
  classes = range(len(config.data.class_names))
  pixels = [counts[i].pixels if i in counts else 0 for i in classes]
  return np.array(pixels, np.int64)


def _spec(config: ConfigDict) -> DatasetSpec:
  if config.data.name not in DATASETS:
    raise unknown_name("data set (data.name)", config.data.name, DATASETS)
  return DATASETS[config.data.name]


def _check_fields(config: ConfigDict) -> None:
  """Values that no file is needed to refuse."""
  data = config.data
  if data.loader not in LOADERS:
    raise unknown_name("data.loader", data.loader, LOADERS)
  if config.loss.balance not in BALANCES:
    raise unknown_name("loss.balance", config.loss.balance, BALANCES[1:])
  canvases = (("data.canvas", data.canvas), ("eval.canvas", config.eval.canvas))
  for field, canvas in canvases:
    if field == "eval.canvas" and not canvas:
      continue
    if len(canvas) != 2 or min(canvas) < 1:
      raise UserError(
        f"{field}={tuple(canvas)}: expected (height, width), --config.{field}="
        "'(360, 480)'"
      )
  if not 0 <= data.ignore_label <= 65535:
    raise UserError(
      f"data.ignore_label={data.ignore_label}: expected 0..65535, an id that"
      " is no class; masks that hold another id for ignored pixels are"
      " rewritten with data.label_map"
    )
  for field in ("mean", "std"):
    if len(data[field]) not in (0, 3):
      raise UserError(
        f"data.{field}={tuple(data[field])}: expected three numbers, red,"
        " green and blue, or () for the data set's own"
      )


def _source(config: ConfigDict, refresh: bool = False) -> sources.Source:
  data = config.data
  _spec(config)
  key = (data.name, data.path, data.val_fraction)
  if refresh or key not in _sources:
    _sources[key] = sources.find(data)
  return _sources[key]


def _recipe(config: ConfigDict, canvas) -> Recipe:
  data, spec = config.data, _spec(config)
  label_map = {
    **{void: data.ignore_label for void in spec.void_ids},
    **labels.parse_label_map(data.label_map),
  }
  red, green, blue = (round(255 * m) for m in (data.mean or spec.mean))
  height, width = canvas
  return Recipe(
    canvas=(height, width),
    fill=(red, green, blue),
    ignore_label=data.ignore_label,
    label_map=tuple(sorted(label_map.items())),
  )


def _open(config: ConfigDict, canvas: tuple[int, int], split: str):
  """The store that reads this config's examples on a canvas."""
  source = _source(config)
  _check_split(source, split)
  recipe = _recipe(config, canvas)
  check = functools.partial(_class_names, config, recipe=recipe)
  data = config.data
  key = (
    data.loader,
    data.prepared,
    data.name,
    examples.fingerprint(source, recipe),
  )
  if key not in _stores:
    if data.loader == "resident":
      from jaxseg.data import resident

      _stores[key] = resident.Store(source, recipe, check)
    else:
      from jaxseg.data import builders, pipeline

      prepared = builders.prepare(
        data.name, source, recipe, data.prepared, check
      )
      _stores[key] = pipeline.Store(prepared, recipe)
  store = _stores[key]
  check(store.counts)
  if data.loader == "resident":
    store.load(split)
  return store


def _class_names(
  config: ConfigDict, counts: audit.Counts, recipe: Recipe
) -> tuple[str, ...]:
  """The user's names, the data set's, or as many as the masks hold ids."""
  names = tuple(config.data.class_names) or _spec(config).class_names
  if names:
    audit.check_ids(counts, len(names), recipe)
  else:
    found = audit.discover_classes(counts, recipe)
    names = tuple(f"class_{i}" for i in range(found))
  if config.data.ignore_label < len(names):
    raise UserError(
      f"data.ignore_label={config.data.ignore_label} is one of the classes"
      f" 0..{len(names) - 1}; choose another id,"
      f" --config.data.ignore_label={255 if len(names) <= 255 else 65535}"
    )
  return names


def _palette(
  config: ConfigDict, spec: DatasetSpec, num_classes: int
) -> tuple[tuple[int, ...], ...]:
  given = tuple(tuple(colour) for colour in config.data.palette)
  if given and len(given) != num_classes:
    raise UserError(
      f"data.palette has {len(given)} colours for {num_classes} classes; give"
      " one RGB triple a class, or () for the data set's own"
    )
  if not given and len(spec.palette) == num_classes:
    return spec.palette
  return given or datasets.voc_palette(num_classes)


def _eval_canvas(config: ConfigDict) -> tuple[int, int]:
  height, width = config.eval.canvas or config.data.canvas
  return height, width


def _eval_split(config: ConfigDict, source: sources.Source) -> str:
  """A folder with train and test only is evaluated on test, and told so."""
  split, there = config.data.eval_split, source.splits
  if config.data.name == "folder" and split == "val" and split not in there:
    if "test" in there:
      print(
        f"note: {config.data.path} has no split 'val'; evaluating on 'test'",
        file=sys.stderr,
      )
      return "test"
  return split


def _check_split(source: sources.Source, split: str) -> None:
  if split not in source.splits:
    known = ", ".join(source.splits)
    raise UserError(
      f"there is no split {split!r}; the data have: {known}. Rename the folder,"
      " or choose among these with --config.data.train_split and"
      " --config.data.eval_split"
    )


def _note_absent(counts: dict, names: tuple[str, ...]) -> None:
  """A class that no training mask holds cannot be learned."""
  absent = [name for i, name in enumerate(names) if i not in counts]
  if absent:
    print(
      f"note: no pixel of {', '.join(absent[:10])} in the training masks",
      file=sys.stderr,
    )
