"""Classification: every image has a class, the largest one in its mask.

This is the view of a segmentation data set that trains a backbone as a
classifier. Everything but the target is as in segmentation: the confusion
matrix counts images instead of pixels.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Integer

from jaxseg.tasks.segmentation import Segmentation


@dataclasses.dataclass(frozen=True)
class Classification(Segmentation):
  """The classification of images; see `Segmentation` for the attributes."""

  def target(self, label: jax.Array) -> jax.Array:
    """Returns the class `[n]` of each image, given labels `[n, h, w]`."""
    return largest_class(
      label, num_classes=self.num_classes, ignore_label=self.ignore_label
    )


def largest_class(
  label: Integer[Array, "n h w"], *, num_classes: int, ignore_label: int
) -> Int[Array, " n"]:
  """Returns the class, other than background, that has the most pixels.

  Class 0 is the background: an image has class 0 only if it holds no other
  class. An image of which every pixel is ignored gets `ignore_label`. Of
  classes with equally many pixels the lower id wins.
  """
  one_hot = label[..., None] == jnp.arange(num_classes)
  counts = jnp.sum(one_hot, axis=(1, 2), dtype=jnp.int32)
  largest = 1 + jnp.argmax(counts[:, 1:], axis=-1)
  found = jnp.where(jnp.any(counts[:, 1:], axis=-1), largest, 0)
  seen = jnp.any(label != ignore_label, axis=(1, 2))
  return jax.lax.select(
    seen, found.astype(jnp.int32), jnp.full_like(found, ignore_label, jnp.int32)
  )
