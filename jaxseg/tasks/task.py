"""What training and evaluation ask of a task."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from jaxseg.types import Outputs

Batch = dict[str, jax.Array]
Scores = dict[str, Any]


@runtime_checkable
class Task(Protocol):
  """The meaning of a batch: a frozen, hashable value without arrays.

  Attributes:
    metric: Name of the score that selects the best checkpoint.
    class_names: Names of the classes, in the order of the class ids.
  """

  metric: str
  class_names: tuple[str, ...]

  def normalise(self, image: jax.Array) -> jax.Array:
    """Returns images as the network expects them, given uint8 images."""

  def inputs(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
    """Returns the augmented images of a training batch and their targets.

    Args:
      batch: The training batch, of n examples.
      key: Random key of each example, `[n]`.
    """

  def loss(self, outputs: Outputs, target: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the loss of the network's outputs as (sum, weight)."""

  def counts(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Returns the counts of one batch, which evaluation adds up."""

  def scores(self, counts: Mapping[str, np.ndarray]) -> Scores:
    """Returns the scores of the added counts."""

  def headline(self, scores: Scores) -> str:
    """Returns the most important scores as one line."""

  def table(self, scores: Scores) -> str:
    """Returns all scores as a table for people."""
