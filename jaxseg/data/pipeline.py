"""Loads training batches from prepared record shards with tf.data.

`order` determines the examples of each step, and shards allow random access,
so a resumed run reads nothing of the steps before it. The records of a batch
are read one by one and decoded together. Several batches are loaded in
parallel.

tf.data does not tune the number of these batches itself. Its tuning thread
sleeps for up to a minute at a time, and an iterator that is deleted sometimes
waits for that thread, so that an interrupted run would end late.
"""

from collections.abc import Callable, Iterator
import functools
import os
import weakref

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from jaxseg.data import builders, order
from jaxseg.data.placement import Placement
from jaxseg.errors import UserError

_FOREVER = np.iinfo(np.int64).max
_PARALLEL_BATCHES = min(os.cpu_count() or 1, 16)  # Batches loaded at a time.
_LOADED_BATCHES = 4  # Batches that wait for the training step.


class Batches:
  """Iterates over a tf.data.Dataset and ends its threads at exit.

  The threads call Python. A thread that called Python while the interpreter
  shuts down would crash or print errors. The finalizer ends them when this
  object is deleted or the program exits.
  """

  def __init__(self, dataset: tf.data.Dataset, errors: list[UserError]):
    """Starts to load batches.

    Args:
      dataset: The batches.
      errors: List to which a function of `dataset` appends an error instead of
        raising it, because TensorFlow would print its traceback.
    """
    self._errors = errors
    self._holder = [dataset.as_numpy_iterator()]
    weakref.finalize(self, self._holder.clear)

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    batch = next(self._holder[0])
    if self._errors:
      raise self._errors[0]
    return batch


class ShardLoader:
  """Streams prepared examples from record shards; see `dataset.Loader`."""

  def __init__(self, prepared: builders.Prepared, placement: Placement):
    """Opens the shards.

    Args:
      prepared: The prepared data set.
      placement: Placement with which it was prepared.
    """
    self.counts = prepared.counts
    self._placement = placement
    self._dtype = prepared.dtype
    self._prepared = prepared
    self._builder = tfds.builder_from_directory(prepared.path)

  def load(self, split: str) -> None:
    """Does nothing, because preparing the shards has read every file."""

  def train_batches(
    self, split: str, *, seed: int, start_step: int, share: order.Share
  ) -> Iterator[dict[str, np.ndarray]]:
    """Yields one process's share of batches start_step, start_step + 1, ..."""
    n = self._builder.info.splits[split].num_examples
    steps = tf.data.Dataset.range(start_step, _FOREVER)
    indices_of = functools.partial(
      order.train_indices, n=n, seed=seed, share=share
    )
    return self._batches(split, steps, indices_of)

  def _batches(
    self,
    split: str,
    steps: tf.data.Dataset,
    indices_of: Callable[[int], np.ndarray],
  ) -> Batches:
    """Loads the batches of `steps`.

    Args:
      split: Name of the split.
      steps: Numbers of the steps.
      indices_of: Function from a step to the indices of its examples.
    """
    records = self._builder.as_data_source(
      split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

    errors: list[UserError] = []

    def read(step):
      index = indices_of(int(step))
      # Records are read one by one because the batched call starts a pool of
      # Python threads each time, which prints errors at exit.
      try:
        found = [records[int(i)] for i in index]
      except Exception as error:  # ArrayRecord raises various errors.
        errors.append(self._prepared.read_error(split, error))
        found = []
      return np.array(found, object), index

    def load(step):
      found, index = tf.numpy_function(read, [step], (tf.string, tf.int32))
      index.set_shape([None])
      return self._decode(found, index)

    batches = steps.map(
      load, num_parallel_calls=_PARALLEL_BATCHES, deterministic=True
    )
    settings = tf.data.Options()
    settings.autotune.enabled = False
    batches = batches.prefetch(_LOADED_BATCHES).with_options(settings)
    return Batches(batches, errors)

  def _decode(self, records, index) -> dict[str, tf.Tensor]:
    """Decodes serialised examples into a batch.

    Args:
      records: Serialised examples `[n]`.
      index: Index of each example in its split `[n]`.
    """
    height, width = self._placement.canvas
    raw = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_example(
      tf.reshape(records, [-1]),
      {
        "image": raw,
        "label": raw,
        "size": tf.io.FixedLenFeature([2], tf.int64),
      },
    )
    image = tf.io.decode_raw(parsed["image"], tf.uint8)
    label = tf.io.decode_raw(parsed["label"], tf.as_dtype(self._dtype))
    return {
      "image": tf.reshape(image, [-1, height, width, 3]),
      "label": tf.reshape(label, [-1, height, width]),
      "size": tf.cast(parsed["size"], tf.int32),
      "index": index,
    }
