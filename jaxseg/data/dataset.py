"""An open data set: its classes, splits and batches.

A batch is a dict of arrays:

- `image`: uint8 `[n, h, w, 3]`. In training, each image lies at the top left of
  a canvas, and all canvases have the same size. In evaluation, images fill the
  array, and the batches of a split may have different sizes h x w.
- `label`: integers `[n, h, w]`, the class id or the ignore label of each pixel
  of the canvas.
- `size`: int32 `[n, 2]`, height and width of the area that each label covers at
  the top left of its canvas. In training, the image covers the same area.
- `index`: int32 `[n]`, position of each example in its split, or -1 for
  padding.
"""

from collections.abc import Iterator
import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxseg.data import audit, contents, datasets, order, resident, sources
from jaxseg.data.evaluation import EvalBatches, EvalSplit
from jaxseg.data.placement import Placement
from jaxseg.errors import UserError


@runtime_checkable
class Loader(Protocol):
  """Reads training examples in batches.

  `resident.ResidentLoader` and `pipeline.ShardLoader` implement it.

  Attributes:
    counts: Occurrences of each id in each split.
  """

  counts: audit.Counts

  def load(self, split: str) -> None:
    """Reads a split, so that every bad file is found before training."""

  def train_batches(
    self, split: str, *, seed: int, start_step: int, share: order.Share
  ) -> Iterator[dict[str, Any]]:
    """Yields one process's share of batches start_step, start_step + 1, ..."""


class Dataset:
  """A data set that yields batches.

  Attributes:
    name: Key of `datasets.DATASETS`.
    class_names: Name of each class.
    palette: RGB colour of each class, in 0..255.
    mean: RGB mean in 0..1.
    std: RGB standard deviation in 0..1.
    canvas: Height and width of the training canvas.
    crop: Height and width of the training crop.
    bits: Bits that 16-bit images use; 0 if all images have 8 bits.
    ignore_label: Id of pixels that count nowhere.
    splits: Number of examples of each split.
    train_split: Split that `train_batches` reads.
    eval_split: Split that `eval_batches` reads by default.
    counts: Occurrences of each id in each split, after the label map and
      before masks are shrunk to the canvas.
  """

  def __init__(
    self,
    *,
    name: str,
    source: sources.Source,
    placement: Placement,
    eval_canvas: tuple[int, int],
    crop: tuple[int, int],
    loader: str,
    prepared: str,
    seed: int,
    train_batch_size: int,
    eval_batch_size: int,
    devices: int,
    train_split: str,
    eval_split: str,
    class_names: tuple[str, ...],
    naming: str,
    palette: tuple[datasets.Colour, ...],
    spec_palette: tuple[datasets.Colour, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
  ):
    """Stores the settings; `read` opens the files.

    Args:
      name: Key of `datasets.DATASETS`.
      source: The original files.
      placement: Placement of examples on the training canvas.
      eval_canvas: Height and width of the evaluation canvas.
      crop: Height and width of the training crop.
      loader: "tfdata" or "resident".
      prepared: Folder of the prepared record shards; unused by "resident".
      seed: Seed of the order of training examples.
      train_batch_size: Global batch size of training.
      eval_batch_size: Global batch size of evaluation.
      devices: Number of devices that evaluation batches are split over.
      train_split: Split to train on.
      eval_split: Split to evaluate on.
      class_names: Names of the classes, or () to count the classes in the
        masks and to number them.
      naming: How ids of the masks can become classes, for messages; "" if the
        classes are fixed.
      palette: RGB colours of the classes, or () for those of the data set.
      spec_palette: RGB colours that the data set is published with, or () if
        it is published without.
      mean: RGB mean in 0..1.
      std: RGB standard deviation in 0..1.
    """
    self.name = name
    self.mean, self.std = mean, std
    self.canvas, self.crop = placement.canvas, crop
    self.bits = placement.bits
    self.ignore_label = placement.ignore_label
    self.train_split, self.eval_split = train_split, eval_split
    self.splits = {s: len(found) for s, found in source.splits.items()}
    self._source = source
    self._placement = placement
    self._eval_placement = dataclasses.replace(placement, canvas=eval_canvas)
    self._loader_name, self._prepared = loader, prepared
    self._seed = seed
    self._batch_sizes = (train_batch_size, eval_batch_size)
    self._devices = devices
    self._given_names = class_names
    self._naming = naming
    self._loader: Loader | None = None
    self._eval_splits: dict[str, EvalSplit] = {}
    self._palettes = (palette, spec_palette)

  def read(self, *, training: bool = True) -> None:
    """Reads and checks the files of the splits that are used.

    Args:
      training: Whether to read the training split as well as the evaluation
        split.

    Raises:
      UserError: A split does not exist, or a file cannot be used.
    """
    used = (self.eval_split,)
    if training:
      used = (self.train_split, self.eval_split)
      advice = "--config.data.train_split and --config.data.eval_split"
    else:
      advice = "--split or --config.data.eval_split"
    for split in used:
      self._check_split(split, f"; rename the folder, or choose with {advice}")
    if training:
      self._loader = self._open_loader()
      self._loader.load(self.train_split)
      self.counts = self._loader.counts
    else:
      self.counts = self._count_ids()
    self.class_names = self._class_names(self.counts)
    self.palette = self._palette()
    if not self._given_names:
      audit.report_guess(self.counts, len(self.class_names), self._naming)
    self._examples(self.eval_split).load()

  def train_batches(
    self,
    *,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
  ) -> Iterator[dict[str, Any]]:
    """Yields this process's share of batches start_step, start_step + 1, ...

    The stream is endless. A batch depends on its step, not on `start_step`.

    Args:
      start_step: Step of the first batch.
      process_index: Index of this process.
      process_count: Number of processes.
    """
    size = self._batch_sizes[0]
    share = order.Share("train.batch_size", size, process_index, process_count)
    return self._loader.train_batches(
      self.train_split, seed=self._seed, start_step=start_step, share=share
    )

  def eval_batches(
    self,
    split: str | None = None,
    *,
    process_index: int = 0,
    process_count: int = 1,
  ) -> EvalBatches:
    """Returns this process's share of every batch of a split.

    Each example occurs once. The images of a batch have one size. Padding
    completes batches; its `index` is -1 and its labels are the ignore label.

    Args:
      split: Name of a split; None for `eval_split`.
      process_index: Index of this process.
      process_count: Number of processes.
    """
    split = self.eval_split if split is None else split
    self._check_split(split)
    return EvalBatches(
      self._examples(split),
      self._batch_sizes[1],
      devices=self._devices,
      process_index=process_index,
      process_count=process_count,
    )

  def example_name(self, split: str, index: int) -> str:
    """Returns the path of the image of an example, for messages."""
    self._check_split(split)
    return self._source.name(split, index)

  @functools.cached_property
  def contents(self) -> contents.Contents:
    """Description of the files of each split, see `contents`."""
    return contents.describe(self._source)

  def class_pixels(self, split: str) -> np.ndarray:
    """Returns the number of pixels of each class in a split, int64 `[k]`."""
    self._check_split(split)
    counts = self.counts[split]
    classes = range(len(self.class_names))
    pixels = [counts[i].pixels if i in counts else 0 for i in classes]
    return np.array(pixels, np.int64)

  def median_frequency(self) -> tuple[float, ...]:
    """Returns class weights that balance the training split.

    See `audit.median_frequency`.
    """
    counts = self.counts[self.train_split]
    return audit.median_frequency(counts, len(self.class_names))

  def absent_classes(self) -> tuple[str, ...]:
    """Returns the names of the classes that occur in no training mask."""
    counts = self.counts[self.train_split]
    return tuple(
      name for i, name in enumerate(self.class_names) if i not in counts
    )

  def _check_split(self, split: str, advice: str = "") -> None:
    """Raises UserError if the data set has no such split."""
    if split not in self.splits:
      known = ", ".join(self.splits)
      raise UserError(
        f"there is no split {split!r}; the data set has: {known}{advice}"
      )

  def _open_loader(self) -> Loader:
    """Returns the loader of training examples."""
    if self._loader_name == "resident":
      return resident.ResidentLoader(
        self._source, self._placement, self._class_names
      )
    # Imported here because importing TensorFlow takes seconds, and only this
    # loader needs it.
    from jaxseg.data import builders, pipeline

    prepared = builders.prepare(
      self.name,
      self._source,
      self._placement,
      self._prepared,
      self._class_names,
    )
    return pipeline.ShardLoader(prepared, self._placement)

  def _count_ids(self) -> audit.Counts:
    """Counts the ids of the masks for a data set that does not train.

    The masks of the other splits are read only to find the classes.
    """
    source = self._source
    if self._given_names:
      splits = {self.eval_split: source.splits[self.eval_split]}
      source = dataclasses.replace(source, splits=splits)
    return audit.count_ids(source, self._placement)

  def _examples(self, split: str) -> EvalSplit:
    """Returns the examples of a split for evaluation."""
    if split not in self._eval_splits:
      self._eval_splits[split] = EvalSplit(
        self._source,
        split,
        self._eval_placement,
        audit.label_dtype(self.counts, self.ignore_label),
        # Without training, each example is read once.
        keep=self._loader_name == "resident" and self._loader is not None,
      )
    return self._eval_splits[split]

  def _class_names(self, counts: audit.Counts) -> tuple[str, ...]:
    """Returns the given names, or a numbered name for each class in the masks.

    Args:
      counts: Occurrences of the ids in the masks.

    Raises:
      UserError: The masks hold ids that are neither a class nor the ignore
        label.
    """
    names = self._given_names
    if names:
      audit.check_ids(counts, len(names), self._placement, self._naming)
    else:
      found = audit.discover_classes(counts, self._placement, self._naming)
      names = tuple(f"class_{i}" for i in range(found))
    if self.ignore_label < len(names):
      raise UserError(
        f"data.ignore_label={self.ignore_label} is one of the classes"
        f" 0..{len(names) - 1}; choose another id,"
        f" --config.data.ignore_label={255 if len(names) <= 255 else 65535}"
      )
    return names

  def _palette(self) -> tuple[datasets.Colour, ...]:
    """Returns the given colours, the published ones, or those of VOC's rule."""
    given, published = self._palettes
    classes = len(self.class_names)
    if given and len(given) != classes:
      raise UserError(
        f"data.palette has {len(given)} colours for {classes} classes; give"
        " one RGB triple for each class, or () for the data set's own"
      )
    if not given and len(published) == classes:
      return published
    return given or datasets.voc_palette(classes)
