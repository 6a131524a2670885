"""Scores a network on a split by adding up the counts of its batches.

Training and the `evaluate` command use the same functions, so their scores
agree. `jax.jit` adds the counts of all devices, and the host adds those of all
batches in 64 bits. The examples that pad a batch have the ignore label
everywhere and count nowhere, so scores do not depend on the batch size.

The network is applied to whole images without a canvas. Its logits are resized
to the area of the label.
"""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxseg import sharding
from jaxseg.evaluation.inference import (
  Inference,
  make_predict_logits,
  on_canvas,
)
from jaxseg.tasks.task import Scores, Task

Batch = dict[str, jax.Array]
Counts = dict[str, jax.Array]
CountStep = Callable[[Any, Batch], tuple[Counts, jax.Array]]


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
    A jitted function of (variables, batch) to the `counts` of the task and the
    predicted class ids, int32, of the pixels of each canvas or of each image.
    It is compiled once for each size of images.
  """
  predict_logits = make_predict_logits(model, task, inference, mesh)

  def count_step(variables, batch):
    logits = predict_logits(variables, batch["image"])
    canvas = batch["label"].shape[1:3]
    logits = on_canvas(logits, batch["size"], canvas)
    ids = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return task.counts(logits, batch), ids

  if mesh is None:
    return jax.jit(count_step)
  shardings = sharding.replicated(mesh), sharding.batch_split(mesh)
  return jax.jit(count_step, out_shardings=shardings)


def score(
  count_step: CountStep,
  variables: Any,
  batches: Iterable[dict[str, Any]],
  task: Task,
  *,
  total: int | None = None,
  progress: bool = True,
  watch: Callable[[Batch, jax.Array], None] | None = None,
) -> Scores:
  """Scores all batches of a split.

  Args:
    count_step: Function that `make_count_step` returned.
    variables: Variables of the network.
    batches: All batches of the split.
    task: Task that turns the added counts into scores.
    total: Number of batches, for the progress bar.
    progress: Whether to show a progress bar.
    watch: Function that is called with each batch and its predictions.

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

  def counted(batch):
    counts, ids = count_step(variables, batch)
    if watch is not None:
      watch(batch, ids)
    return counts

  # The counts of a batch are read while the next batch is computed.
  for counts in sharding.one_ahead(map(counted, bar)):
    for key, count in counts.items():
      sums[key] = sums.get(key, 0) + _in_64_bits(np.asarray(count))
  return task.scores(sums)


def _in_64_bits(count: np.ndarray) -> np.ndarray:
  """Returns counts as int64, or as float64 if they are not integers."""
  return count.astype(np.int64 if count.dtype.kind in "iu" else np.float64)
