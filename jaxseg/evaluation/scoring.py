"""Scoring a network on a split: counts of every batch, added exactly.

Training and the `evaluate` command score with the same functions, so their
numbers agree. Counts are summed over the devices by `jit`, and over batches in
64 bits on the host. Examples that fill up the last batch carry the ignore
label and count nowhere, so any split size and any batch size give the same
numbers.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from tqdm import tqdm

from jaxseg import sharding
from jaxseg.evaluation.inference import Inference, make_predict_logits
from jaxseg.tasks.segmentation import Scores, Segmentation

CountStep = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]


def make_count_step(
  model: nn.Module,
  task: Segmentation,
  inference: Inference,
  mesh: jax.sharding.Mesh | None = None,
) -> CountStep:
  """Compiles the evaluation of one batch.

  Args:
    model: The network.
    task: What its batches mean.
    inference: How the network is applied.
    mesh: The devices that batches are split over; None for one device.

  Returns:
    A jitted function of (variables, batch) to the `counts` of the task.
  """
  predict_logits = make_predict_logits(model, task, inference, mesh)

  def count_step(variables, batch):
    return task.counts(predict_logits(variables, batch["image"]), batch)

  replicated = None if mesh is None else sharding.replicated(mesh)
  return jax.jit(count_step, out_shardings=replicated)


def score(
  count_step: CountStep,
  variables: Any,
  batches: Iterable[dict[str, Any]],
  task: Segmentation,
  *,
  total: int | None = None,
  progress: bool = True,
) -> Scores:
  """Scores all batches of a split.

  Args:
    count_step: Made by `make_count_step`.
    variables: Variables of the network.
    batches: The whole split.
    task: Turns the added counts into scores.
    total: Number of batches, for the progress bar.
    progress: Whether to show a progress bar.

  Returns:
    The `scores` of the task.
  """
  bar = tqdm(
    batches,
    desc="evaluate",
    unit="batch",
    total=total,
    # With None, tqdm shows a bar only on a terminal.
    disable=None if progress and jax.process_index() == 0 else True,
    leave=False,
    dynamic_ncols=True,
  )
  sums: dict[str, np.ndarray] = {}
  for counts in _one_behind(count_step, variables, bar):
    for key, count in counts.items():
      sums[key] = sums.get(key, 0) + _in_64_bits(np.asarray(count))
  return task.scores(sums)


def _in_64_bits(count: np.ndarray) -> np.ndarray:
  return count.astype(np.int64 if count.dtype.kind in "iu" else np.float64)


def _one_behind(count_step, variables, batches) -> Iterator[dict[str, Any]]:
  """Yields each result after the next step was dispatched."""
  unread = None
  for batch in batches:
    result = count_step(variables, batch)
    if unread is not None:
      yield unread
    unread = result
  if unread is not None:
    yield unread
