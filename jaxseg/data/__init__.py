"""Data: `open(config)` returns a `Dataset`, which yields batches.

Opening a data set reads and checks all of its files, before anything trains.
An error about a bad file is one line with the file's name and the fix.

`config.data.loader` selects where batches come from. "tfdata" prepares record
shards once and streams them through the host. "resident" keeps the whole data
set on the device and needs no TensorFlow. Both yield identical batches.
"""

from ml_collections import ConfigDict

from jaxseg import config_check, sharding
from jaxseg.data import labels, sources
from jaxseg.data.dataset import Dataset
from jaxseg.data.datasets import DATASETS, DatasetSpec
from jaxseg.data.notes import note
from jaxseg.data.placement import Placement


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
    devices: Number of devices that evaluation batches are split over. Their
      size is `eval.batch_size`, rounded up to a multiple of it.

  Raises:
    UserError: A field has an invalid value, or a file cannot be used.
  """
  config_check.check(config, training=training)
  data = config.data
  spec = DATASETS[data.name]
  whole = whole or (not training and data.eval_split == sources.ALL)
  source = sources.find(data.name, data.path, data.val_fraction, whole=whole)
  mean, std = tuple(data.mean or spec.mean), tuple(data.std or spec.std)
  dataset = Dataset(
    name=data.name,
    source=source,
    placement=_placement(config, spec, mean),
    eval_canvas=tuple(config.eval.canvas or data.canvas),
    loader=data.loader,
    prepared=data.prepared,
    seed=config.seed,
    train_batch_size=config.train.batch_size,
    eval_batch_size=sharding.round_up(config.eval.batch_size, devices),
    train_split=data.train_split,
    eval_split=_eval_split(data, source),
    class_names=tuple(data.class_names) or spec.class_names,
    palette=tuple(tuple(colour) for colour in data.palette),
    spec_palette=spec.palette,
    mean=mean,
    std=std,
  )
  dataset.read(training=training)
  return dataset


def _placement(
  config: ConfigDict, spec: DatasetSpec, mean: tuple[float, ...]
) -> Placement:
  """Returns the placement of examples on the training canvas."""
  data = config.data
  label_map = {
    **dict.fromkeys(spec.void_ids, data.ignore_label),
    **labels.parse_label_map(data.label_map),
  }
  canvas = tuple(data.canvas)
  return Placement.on_mean(canvas, mean, data.ignore_label, label_map)


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
