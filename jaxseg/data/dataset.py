"""A data set that is open: its classes, its splits, its batches.

A batch is a dict of arrays:

- `image`: uint8 `[n, h, w, 3]` and `label`: `[n, h, w]`, class ids or the
  ignore label. Both lie at the top left of a canvas of one size.
- `size`: int32 `[n, 2]`, height and width of the example on the canvas.
- `index`: int32 `[n]`, position of the example in its split; -1 is padding.
"""

from collections.abc import Iterator
import dataclasses
import functools
from typing import Any

import numpy as np

from jaxseg.data import audit, datasets, order, sources
from jaxseg.data.placement import Placement
from jaxseg.errors import UserError

LOADERS = ("tfdata", "resident")


class Dataset:
  """The examples of a data set, read by batches.

  Attributes:
    name: Key of `datasets.DATASETS`.
    class_names: One name a class.
    palette: One RGB triple a class.
    mean: RGB mean in 0..1.
    std: RGB standard deviation in 0..1.
    ignore_label: Label of the pixels that count nowhere.
    splits: Number of examples of each split.
    train_split: The split of `train_batches`.
    eval_split: The split that `eval_batches` reads unless told otherwise.
    counts: Pixels of every id in every split, before images are shrunk.
  """

  def __init__(
    self,
    *,
    name: str,
    source: sources.Source,
    placement: Placement,
    eval_canvas: tuple[int, int],
    loader: str,
    prepared: str,
    seed: int,
    train_batch_size: int,
    eval_batch_size: int,
    train_split: str,
    eval_split: str,
    class_names: tuple[str, ...],
    palette: tuple[datasets.Colour, ...],
    spec_palette: tuple[datasets.Colour, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
  ):
    """Stores the settings; `read` opens the files.

    Args:
      name: Key of `datasets.DATASETS`.
      source: The original files.
      placement: How files become examples on the training canvas.
      eval_canvas: Height and width of the canvas of evaluation.
      loader: "tfdata" or "resident".
      prepared: Folder of the prepared record shards.
      seed: Determines the order of training examples.
      train_batch_size: Global batch size of training.
      eval_batch_size: Global batch size of evaluation.
      train_split: The split to train on.
      eval_split: The split to evaluate on.
      class_names: Names of the classes; () to count them in the masks.
      palette: Colours of the classes; () for those of the data set.
      spec_palette: Colours that the data set is published with, or ().
      mean: RGB mean in 0..1.
      std: RGB standard deviation in 0..1.
    """
    self.name = name
    self.mean, self.std = mean, std
    self.ignore_label = placement.ignore_label
    self.train_split, self.eval_split = train_split, eval_split
    self.splits = {s: len(found) for s, found in source.splits.items()}
    self._source = source
    self._placement = placement
    self._eval_placement = dataclasses.replace(placement, canvas=eval_canvas)
    self._loader, self._prepared = loader, prepared
    self._seed = seed
    self._batch_sizes = (train_batch_size, eval_batch_size)
    self._given_names = class_names
    self._stores: dict[Placement, Any] = {}
    self._palettes = (palette, spec_palette)

  def read(self, *, training: bool = True) -> None:
    """Reads and checks what batches will be made of.

    Args:
      training: Read the training split as well as the evaluation split.

    Raises:
      UserError: A split that does not exist, or files that cannot be used.
    """
    used = [(self.eval_split, self._eval_placement)]
    if training:
      used.insert(0, (self.train_split, self._placement))
    for split, _ in used:
      self._check_split(split)
    for split, placement in used:
      store = self._store(placement)
      store.load(split)
    self.counts = store.counts
    self.class_names = self._class_names(store.counts)
    self.palette = self._palette()

  def train_batches(
    self,
    *,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
  ) -> Iterator[dict[str, Any]]:
    """Yields this process's part of batches start_step, start_step + 1, ...

    The stream is endless. Batch s does not depend on the step that the stream
    started from.
    """
    size = self._batch_sizes[0]
    share = order.Share("train.batch_size", size, process_index, process_count)
    return self._store(self._placement).train_batches(
      self.train_split, seed=self._seed, start_step=start_step, share=share
    )

  def eval_batches(
    self,
    split: str | None = None,
    *,
    process_index: int = 0,
    process_count: int = 1,
  ) -> Iterator[dict[str, Any]]:
    """Yields this process's part of every batch of a split, in order.

    Each example comes once. The last global batch is filled up with padding:
    `index` -1 and ignored labels.

    Args:
      split: Name of a split; None for `eval_split`.
      process_index: Index of this process.
      process_count: Number of processes.
    """
    split = self.eval_split if split is None else split
    self._check_split(split)
    size = self._batch_sizes[1]
    share = order.Share("eval.batch_size", size, process_index, process_count)
    store = self._store(self._eval_placement)
    return store.eval_batches(split, share=share)

  def example_name(self, split: str, index: int) -> str:
    """Returns what to call an example in messages: the path of its image."""
    self._check_split(split)
    return self._source.name(split, index)

  def class_pixels(self, split: str) -> np.ndarray:
    """Returns the pixels of each class in the masks of a split, int64 `[k]`."""
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
    """Returns the classes that no training mask holds; they are not learned."""
    counts = self.counts[self.train_split]
    return tuple(
      name for i, name in enumerate(self.class_names) if i not in counts
    )

  def _check_split(self, split: str) -> None:
    if split not in self.splits:
      known = ", ".join(self.splits)
      raise UserError(
        f"there is no split {split!r}; the data have: {known}. Rename the"
        " folder, or choose among these with --config.data.train_split and"
        " --config.data.eval_split"
      )

  def _store(self, placement: Placement):
    """Returns the loader of the examples on one canvas, opening it once."""
    if placement not in self._stores:
      check = functools.partial(self._class_names, placement=placement)
      if self._loader == "resident":
        from jaxseg.data import resident

        store = resident.Store(self._source, placement, check)
      else:
        # Imported here: TensorFlow takes seconds, and is not needed otherwise.
        from jaxseg.data import builders, pipeline

        prepared = builders.prepare(
          self.name, self._source, placement, self._prepared, check
        )
        store = pipeline.Store(prepared, placement)
      self._stores[placement] = store
    return self._stores[placement]

  def _class_names(
    self, counts: audit.Counts, placement: Placement | None = None
  ) -> tuple[str, ...]:
    """Returns the given names, or as many as the masks hold ids.

    Raises:
      UserError: Ids that are no class.
    """
    placement = self._placement if placement is None else placement
    names = self._given_names
    if names:
      audit.check_ids(counts, len(names), placement)
    else:
      found = audit.discover_classes(counts, placement)
      names = tuple(f"class_{i}" for i in range(found))
    if self.ignore_label < len(names):
      raise UserError(
        f"data.ignore_label={self.ignore_label} is one of the classes"
        f" 0..{len(names) - 1}; choose another id,"
        f" --config.data.ignore_label={255 if len(names) <= 255 else 65535}"
      )
    return names

  def _palette(self) -> tuple[datasets.Colour, ...]:
    given, published = self._palettes
    classes = len(self.class_names)
    if given and len(given) != classes:
      raise UserError(
        f"data.palette has {len(given)} colours for {classes} classes; give"
        " one RGB triple a class, or () for the data set's own"
      )
    if not given and len(published) == classes:
      return published
    return given or datasets.voc_palette(classes)
