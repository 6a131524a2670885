"""Scores a network on a split by adding up the counts of its batches.

Training and the `evaluate` command use the same functions, so their scores
agree. `jax.jit` adds the counts of all devices, and the host adds those of all
batches in 64 bits. The examples that pad the last batch have the ignore label
everywhere and count nowhere, so scores do not depend on the batch size.
"""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from tqdm import tqdm

from jaxseg import sharding
from jaxseg.evaluation.inference import Inference, make_predict_logits
from jaxseg.tasks.task import Scores, Task

CountStep = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]


def make_count_step(
  model: nn.Module,
  task: Task,
  inference: Inference,
  mesh: jax.sharding.Mesh | None = None,
) -> CountStep:
  """Compiles the evaluation of one batch.

  Args:
    model: The network.
    task: Task that counts the outcomes.
    inference: Settings of inference.
    mesh: Devices that batches are split over; None for one device.

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
  task: Task,
  *,
  total: int | None = None,
  progress: bool = True,
) -> Scores:
  """Scores all batches of a split.

  Args:
    count_step: Function that `make_count_step` returned.
    variables: Variables of the network.
    batches: All batches of the split.
    task: Task that turns the added counts into scores.
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
    # None shows the bar on terminals only.
    disable=None if progress and jax.process_index() == 0 else True,
    leave=False,
    dynamic_ncols=True,
  )
  sums: dict[str, np.ndarray] = {}
  # The counts of a batch are read while the next batch is computed.
  results = (count_step(variables, batch) for batch in bar)
  for counts in sharding.one_ahead(results):
    for key, count in counts.items():
      sums[key] = sums.get(key, 0) + _in_64_bits(np.asarray(count))
  return task.scores(sums)


def _in_64_bits(count: np.ndarray) -> np.ndarray:
  """Returns counts as int64, or as float64 if they are not integers."""
  return count.astype(np.int64 if count.dtype.kind in "iu" else np.float64)
