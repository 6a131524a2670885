"""Data: `open(config)` returns a `Dataset`, which yields batches.

Opening a data set reads and checks all of its files, before anything trains.
An error about a bad file is one line with the file's name and the fix.

`config.data.loader` selects where training batches come from. "tfdata" prepares
record shards once and streams them through the host. "resident" keeps the
training split on the device and needs no TensorFlow. Both yield identical
batches. Evaluation reads the original files.
"""

import itertools

from ml_collections import ConfigDict

from jaxseg import config_check
from jaxseg.data import class_file, labels, sources, survey
from jaxseg.data.dataset import Dataset
from jaxseg.data.datasets import DATASETS, DatasetSpec
from jaxseg.data.notes import note
from jaxseg.data.placement import Placement
from jaxseg.errors import UserError


def open(
  config: ConfigDict,
  *,
  training: bool = True,
  whole: bool = False,
  devices: int = 1,
) -> Dataset:
  """Opens the data set of a configuration and checks all of its files.

  Args:
    config: The whole configuration. This is the only function that reads its
      `data` section to find files and to form batches.
    training: Whether to read the training split as well as the evaluation
      split; `train_batches` needs it.
    whole: Whether the images of a folder without splits form one split,
      `sources.ALL`, which is evaluated. Without it such a folder is split as
      in training, unless `data.eval_split` is `sources.ALL`.
    devices: Number of devices that evaluation batches are split over. The sizes
      of batches are rounded up to a multiple of it.

  Raises:
    UserError: A field has an invalid value, or a file cannot be used.
  """
  config_check.check(config, training=training)
  data = config.data
  spec = DATASETS[data.name]
  whole = whole or (not training and data.eval_split == sources.ALL)
  source = sources.find(data.name, data.path, data.val_fraction, whole=whole)
  mean, std = tuple(data.mean or spec.mean), tuple(data.std or spec.std)
  names, naming = _class_names(data, spec, source)
  canvas, crop, bits = _chosen(config, source, training=training)
  dataset = Dataset(
    name=data.name,
    source=source,
    placement=Placement.on_mean(
      canvas, mean, data.ignore_label, _label_map(data, spec), bits
    ),
    eval_canvas=tuple(config.eval.canvas) or canvas,
    crop=crop,
    loader=data.loader,
    prepared=data.prepared,
    seed=config.seed,
    train_batch_size=config.train.batch_size,
    eval_batch_size=config.eval.batch_size,
    devices=devices,
    train_split=data.train_split,
    eval_split=_eval_split(data, source),
    class_names=names,
    # A trained network has its classes.
    naming=naming if training else "",
    palette=tuple(tuple(colour) for colour in data.palette),
    spec_palette=spec.palette,
    mean=mean,
    std=std,
  )
  dataset.read(training=training)
  return dataset


def _label_map(data: ConfigDict, spec: DatasetSpec) -> dict[int, int]:
  """Returns the label map with the ids that the data set itself ignores."""
  return {
    **dict.fromkeys(spec.void_ids, data.ignore_label),
    **labels.parse_label_map(data.label_map),
  }


def _class_names(
  data: ConfigDict, spec: DatasetSpec, source: sources.Source
) -> tuple[tuple[str, ...], str]:
  """Returns the names of the classes, and how more of them can be named.

  Raises:
    UserError: The class file cannot be used, or contradicts `data.class_names`.
  """
  given = tuple(data.class_names)
  if len(given) == 1:
    raise UserError(
      f"data.class_names={given} names one class; expected two or more,"
      ' --config.data.class_names=\'("sky", "road")\''
    )
  if data.name != "folder":
    return given or spec.class_names, "name their classes in data.class_names"
  path = source.root / class_file.NAME
  naming = f"name all classes in {path}, one a line"
  if not path.exists():
    if given:
      naming = "name their classes in data.class_names"
    return given, naming
  names = class_file.read(path, data.ignore_label)
  if given and given != names:
    pairs = itertools.zip_longest(names, given, fillvalue="")
    differing = [(i, *pair) for i, pair in enumerate(pairs) if len({*pair}) > 1]
    i, theirs, ours = differing[0]
    raise UserError(
      f"{path} names class {i} {theirs!r}, but data.class_names has {ours!r}"
      f" ({len(differing)} names differ); correct the file, or delete it"
    )
  return names, naming


def _chosen(
  config: ConfigDict, source: sources.Source, *, training: bool
) -> tuple[survey.Size, survey.Size, int]:
  """Returns canvas, crop and bits; those not given are chosen and reported."""
  data = config.data
  canvas, crop = tuple(data.canvas), tuple(config.augment.crop)
  bits = data.bits
  if canvas and (bits or not training):
    return canvas, crop or survey.choose_crop(canvas, data.largest_crop), bits
  split = data.train_split
  if split not in source.splits:
    split = next(iter(source.splits))
  found = survey.take(source, split)
  chosen = []
  if not canvas:
    canvas = survey.choose_canvas(found.sizes, data.largest_canvas)
    chosen.append("data.canvas={}x{}".format(*canvas))
  if not crop:
    crop = survey.choose_crop(canvas, data.largest_crop)
    chosen.append("augment.crop={}x{}".format(*crop))
  if not bits and found.peak is not None:
    bits = survey.choose_bits(found.peak)
    chosen.append(
      f"data.bits={bits}, for 16-bit images with values up to {found.peak}"
    )
  if chosen:
    note(f"{found.describe()}: chose {', '.join(chosen)}")
  return canvas, crop, bits


def _eval_split(data: ConfigDict, source: sources.Source) -> str:
  """Returns `data.eval_split`, or the split that takes its place.

  A folder that is scored as a whole has no other split, and "test" replaces a
  missing "val".
  """
  split = data.eval_split
  if tuple(source.splits) == (sources.ALL,):
    if split != sources.ALL:
      note(
        f"{data.path} has no splits, so all of its"
        f" {len(source.splits[sources.ALL])} images are scored; --split=val"
        " scores the share that training keeps for validation"
      )
    return sources.ALL
  if data.name == "folder" and split == "val" and split not in source.splits:
    if "test" in source.splits:
      note(f"{data.path} has no split 'val'; evaluating on 'test'")
      return "test"
  return split
