"""The label of an image is its largest class."""

import jax.numpy as jnp
import numpy as np

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
