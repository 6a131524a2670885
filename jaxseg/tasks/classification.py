"""Classification: every image has one class.

This task trains a backbone as a classifier on a segmentation data set. The
class of an image is the one that covers most of its mask. Everything else is as
in segmentation; the confusion matrix counts images instead of pixels.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Integer

from jaxseg.tasks.segmentation import Segmentation


@dataclasses.dataclass(frozen=True)
class Classification(Segmentation):
  """Classification of images; the attributes are those of `Segmentation`."""

  def target(self, label: jax.Array) -> jax.Array:
    """Returns the class `[n]` of each image, given labels `[n, h, w]`."""
    return largest_class(
      label, num_classes=self.num_classes, ignore_label=self.ignore_label
    )


def largest_class(
  label: Integer[Array, "n h w"], *, num_classes: int, ignore_label: int
) -> Int[Array, " n"]:
  """Returns the foreground class with the most pixels in each mask.

  Class 0 is the background. A mask has class 0 only if it contains no other
  class, and `ignore_label` if all of its pixels are ignored. The lowest id wins
  if several classes have the same number of pixels.

  Args:
    label: Class id, or ignore label, of each pixel.
    num_classes: Number of classes, with the background.
    ignore_label: Id of pixels that count nowhere.
  """
  one_hot = label[..., None] == jnp.arange(num_classes)
  counts = jnp.sum(one_hot, axis=(1, 2), dtype=jnp.int32)
  largest = 1 + jnp.argmax(counts[:, 1:], axis=-1)
  found = jnp.where(jnp.any(counts[:, 1:], axis=-1), largest, 0)
  has_valid_pixel = jnp.any(label != ignore_label, axis=(1, 2))
  return jax.lax.select(
    has_valid_pixel,
    found.astype(jnp.int32),
    jnp.full_like(found, ignore_label, jnp.int32),
  )
