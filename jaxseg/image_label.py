"""The classification view of a segmentation data set."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Integer


def largest_class(
  label: Integer[Array, "n h w"], *, num_classes: int, ignore_label: int
) -> Int[Array, " n"]:
  """One label an image: the class, besides background, of the most pixels.

  Class 0 is the background and is the answer only where nothing else is
  seen; an image of ignored pixels alone is ignored. Ties go to the lower id.
  """
  one_hot = label[..., None] == jnp.arange(num_classes)
  counts = jnp.sum(one_hot, axis=(1, 2), dtype=jnp.int32)
  largest = 1 + jnp.argmax(counts[:, 1:], axis=-1)
  found = jnp.where(jnp.any(counts[:, 1:], axis=-1), largest, 0)
  seen = jnp.any(label != ignore_label, axis=(1, 2))
  return jax.lax.select(
    seen, found.astype(jnp.int32), jnp.full_like(found, ignore_label, jnp.int32)
  )
