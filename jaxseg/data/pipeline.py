"""Batches from prepared shards, by tf.data: host only, uint8, reproducible.

Step s is an index like any other: its examples follow from the order, their
records are read at random access, so a resumed run reads nothing of what lies
behind it. The records of a batch are read one by one and decoded at once;
several batches are under way at a time.
"""

from collections.abc import Iterator
import functools
import weakref

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from jaxseg.data import builders, order
from jaxseg.data.placement import Placement

_FOREVER = np.iinfo(np.int64).max


class Batches:
  """Iterates over a data set whose threads end before the interpreter does.

  They call Python; a thread that did so during shutdown would crash or
  complain. The finalizer runs when this object or the program ends.
  """

  def __init__(self, dataset: tf.data.Dataset):
    self._holder = [dataset.as_numpy_iterator()]
    weakref.finalize(self, self._holder.clear)

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    return next(self._holder[0])


class Store:
  """Prepared examples, read by batches."""

  def __init__(self, prepared: builders.Prepared, placement: Placement):
    self.counts = prepared.counts
    self._placement = placement
    self._dtype = prepared.dtype
    self._builder = tfds.builder_from_directory(prepared.path)

  def load(self, split: str) -> None:
    """Does nothing: preparing has read every file."""

  def train_batches(
    self, split: str, *, seed: int, start_step: int, share: order.Share
  ) -> Iterator[dict[str, np.ndarray]]:
    """This process's part of batches start_step, start_step + 1, ..."""
    n = self._builder.info.splits[split].num_examples
    steps = tf.data.Dataset.range(start_step, _FOREVER)
    choose = functools.partial(order.train_indices, n=n, seed=seed, share=share)
    return self._batches(split, steps, choose)

  def eval_batches(
    self, split: str, *, share: order.Share
  ) -> Iterator[dict[str, np.ndarray]]:
    """This process's part of every batch, the last one padded."""
    n = self._builder.info.splits[split].num_examples
    indices = np.stack(list(order.eval_indices(n, share)))
    steps = tf.data.Dataset.range(len(indices))
    return self._batches(split, steps, indices.__getitem__)

  def _batches(self, split, steps, choose):
    """Maps step numbers to batches; `choose` gives the examples of a step."""
    records = self._builder.as_data_source(
      split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

    def read(step):
      index = choose(int(step))
      # One by one: the batched call starts a pool of Python threads each time,
      # which also complains when the interpreter ends.
      found = [records[int(i)] for i in index if i >= 0]
      return np.array(found, object), index

    def load(step):
      found, index = tf.numpy_function(read, [step], (tf.string, tf.int32))
      index.set_shape([None])
      return self._decode(found, index)

    batches = steps.map(
      load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return Batches(batches.prefetch(tf.data.AUTOTUNE))

  def _decode(self, records, index) -> dict[str, tf.Tensor]:
    """Serialised examples to arrays; padding where index is -1."""
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
    batch = {
      "image": tf.reshape(image, [-1, height, width, 3]),
      "label": tf.reshape(label, [-1, height, width]),
      "size": tf.cast(parsed["size"], tf.int32),
    }
    missing = tf.size(index) - tf.shape(batch["image"])[0]
    for name, value in self._placement.padding(self._dtype).items():
      shape = tf.concat([[missing], value.shape], 0)
      filler = tf.broadcast_to(tf.constant(value), shape)
      batch[name] = tf.concat([batch[name], filler], 0)
    return {**batch, "index": index}
