"""The label of an image is its largest class."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import tasks
from jaxseg.config import base
from jaxseg.tasks.classification import largest_class


def test_largest_class_by_hand():
  label = np.zeros((5, 4, 4), np.uint8)
  label[0, 0] = 2  # 4 pixels of class 2, 12 of background
  label[0, 1, 0] = 1
  label[1, 0, :2], label[1, 1, :2] = 1, 2  # a tie: the lower id
  label[3] = 255  # nothing seen; label[2] is all background
  label[4, :3], label[4, 3, 0] = 255, 3
  found = largest_class(jnp.asarray(label), num_classes=4, ignore_label=255)
  np.testing.assert_array_equal(found, [2, 1, 0, 255, 3])


def test_padding_of_the_last_batch_counts_nowhere():
  c = base()
  c.task = "classification"
  c.data.update(
    class_names=("a", "b", "c"), mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0)
  )
  task = tasks.create(c)
  label = np.full((5, 4, 4), 255, np.uint8)
  label[:3] = np.array([0, 1, 2])[:, None, None]
  logits = np.eye(5, 3, dtype=np.float32)
  counts = jax.jit(task.counts)
  padded = counts(jnp.asarray(logits), {"label": jnp.asarray(label)})
  alone = counts(jnp.asarray(logits[:3]), {"label": jnp.asarray(label[:3])})
  assert padded.keys() == alone.keys()
  for key, value in alone.items():
    np.testing.assert_array_equal(padded[key], value)
  assert np.sum(padded["confusion"]) == 3
