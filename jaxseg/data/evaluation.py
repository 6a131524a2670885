"""Batches of whole images, for evaluation.

An image fills the input of the network, so that no padding takes part in the
scene. The images of a batch have one size, `Placement.input_size`, and `order`
groups the examples by it. The files are read each time that a split is
evaluated, in threads that work ahead, or once if `keep` is set. Both loaders
use this code, and `evaluate` prepares nothing.
"""

from collections.abc import Iterator
import contextlib
import functools
import math

import numpy as np

from jaxseg.data import order, progress, resident
from jaxseg.data.placement import Placement
from jaxseg.data.sources import Source
from jaxseg.errors import UserError

Example = dict[str, np.ndarray]


class EvalSplit:
  """The examples of a split as evaluation uses them."""

  def __init__(
    self,
    source: Source,
    split: str,
    placement: Placement,
    dtype: np.dtype,
    *,
    keep: bool,
  ):
    """Stores the settings; no file is opened.

    Args:
      source: The original files.
      split: Name of the split.
      placement: Placement on the canvas of evaluation.
      dtype: Type of the labels.
      keep: Whether to keep examples in memory once they were read.
    """
    self._source, self._split = source, split
    self._placement, self._dtype = placement, dtype
    self._keep = keep
    self._kept: dict[int, Example] = {}

  @functools.cached_property
  def shapes(self) -> list[tuple[int, int]]:
    """Height and width of the network's input for each example."""
    count = len(self._source.splits[self._split])

    def shape(index: int) -> tuple[int, int]:
      size = self._source.size(self._split, index)
      return self._placement.input_size(size)

    return list(progress.in_order(shape, count))

  @property
  def nbytes(self) -> int:
    """Bytes of all examples in memory."""
    images = sum(3 * math.prod(shape) for shape in self.shapes)
    label = math.prod(self._placement.canvas) * self._dtype.itemsize
    return images + label * len(self.shapes)

  def load(self) -> None:
    """Reads all examples into memory if they are to be kept.

    Raises:
      UserError: A file cannot be read, or memory is too small.
    """
    if self._keep:
      resident.require_memory(
        self._split, self.nbytes, resident.host_memory(), self._placement.canvas
      )
      title = f"reading {self._split} examples"
      for _ in progress.in_order(self.example, len(self.shapes), title=title):
        pass

  def example(self, index: int) -> Example:
    """Reads an example, unless it was kept."""
    if index in self._kept:
      return self._kept[index]
    image, ids = self._source.read(self._split, index)
    try:
      example = self._placement.place_whole(image, ids, self._dtype)
    except UserError as error:
      name = self._source.name(self._split, index)
      raise UserError(f"{name}: {error}") from error
    if self._keep:
      self._kept[index] = example
    return example

  def padding(self, index: int) -> Example:
    """Returns the image of an example without its label, to fill a batch.

    A network may normalise by the statistics of its batch, as FC-DenseNet does;
    a blank image would change them.
    """
    image = self.example(index)["image"]
    return {**self._placement.padding(self._dtype), "image": image}


class EvalBatches:
  """One process's share of every batch of a split.

  It can be iterated over several times. `len` is the number of batches.

  Attributes:
    shapes: The distinct sizes of the images, in the order of the batches.
  """

  def __init__(
    self,
    examples: EvalSplit,
    batch_size: int,
    *,
    devices: int = 1,
    process_index: int = 0,
    process_count: int = 1,
  ):
    """Orders the examples.

    Args:
      examples: The examples of the split.
      batch_size: Largest size of a global batch, before it is rounded up to a
        multiple of the numbers of devices and of processes.
      devices: Number of devices of all processes.
      process_index: Index of this process.
      process_count: Number of processes.

    Raises:
      UserError: The batch size is not positive, or an image cannot be read.
    """
    if batch_size < 1:
      raise UserError(f"eval.batch_size={batch_size}: expected 1 or more")
    self._examples = examples
    self._order = []
    shapes = []
    multiple = math.lcm(devices, process_count)
    for shape, index in order.eval_batches(
      examples.shapes, batch_size, multiple=multiple
    ):
      # The images of a batch, repeated where it is padded.
      shown = np.resize(index[index >= 0], len(index))
      own = np.stack([index, shown], axis=1)
      self._order.append(np.split(own, process_count)[process_index])
      shapes.append(shape)
    self.shapes = list(dict.fromkeys(shapes))

  def __len__(self) -> int:
    return len(self._order)

  def __str__(self) -> str:
    """Says how many images have how many sizes."""
    images = len(self._examples.shapes)
    sizes = len(self.shapes)
    text = f"evaluating {images} image{'s' if images != 1 else ''}"
    if sizes == 1:
      return text
    return f"{text} in {sizes} shapes; each is compiled once"

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches; `index` is -1 for padding."""
    rows = np.concatenate([np.zeros((0, 2), np.int32), *self._order])

    def read(row: int) -> Example:
      index, shown = rows[row].tolist()
      if index < 0:
        return self._examples.padding(shown)
      return self._examples.example(index)

    with contextlib.closing(progress.in_order(read, len(rows))) as examples:
      for own in self._order:
        batch = [next(examples) for _ in own]
        stacked = {k: np.stack([row[k] for row in batch]) for k in batch[0]}
        yield {**stacked, "index": own[:, 0]}
