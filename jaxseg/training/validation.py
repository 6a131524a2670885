"""Evaluates a network during training and draws its predictions."""

from typing import Any

import jax
import numpy as np

from jaxseg import sharding
from jaxseg.evaluation import inference, scoring
from jaxseg.tasks import tables
from jaxseg.training.reports import Reports
from jaxseg.training.setup import Experiment
from jaxseg.training.state import TrainState


class Validation:
  """Scores a train state on the evaluation split and draws predictions."""

  def __init__(
    self, experiment: Experiment, mesh: jax.sharding.Mesh, reports: Reports
  ):
    self._experiment, self._mesh, self._reports = experiment, mesh, reports
    model, task = experiment.model, experiment.task
    settings = experiment.inference
    self._count_step = scoring.make_count_step(model, task, settings, mesh)
    self._predict = jax.jit(
      inference.make_predict(model, task, settings, mesh),
      out_shardings=sharding.replicated(mesh),
    )

  def __call__(self, state: TrainState, step: int) -> dict[str, Any]:
    """Writes scores and a picture to the work directory; returns the scores."""
    dataset = self._experiment.dataset
    variables = state.variables()
    examples = dataset.splits[dataset.eval_split]
    scores = scoring.score(
      self._count_step,
      variables,
      self._batches(),
      self._experiment.task,
      total=-(-examples // self._experiment.eval_batch_size),
    )
    self._reports.scalars(step, dataset.eval_split, tables.flat(scores))
    if self._experiment.options.picture_count:
      self._draw(variables, step)
    return scores

  def _batches(self):
    """Returns the global batches of the split; the last one is padded."""
    return sharding.device_batches(
      self._experiment.dataset.eval_batches(
        process_index=jax.process_index(), process_count=jax.process_count()
      ),
      self._mesh,
    )

  def _draw(self, variables: Any, step: int) -> None:
    """Draws the first examples of the split and their predictions."""
    count = self._experiment.options.picture_count
    batch = next(iter(self._batches()))
    predictions = self._predict(variables, batch["image"])
    # Each process reads the first examples on its own first device.
    images, labels = (
      np.asarray(batch[key].addressable_shards[0].data)[:count]
      for key in ("image", "label")
    )
    predictions = np.asarray(predictions)[: len(images)]
    if predictions.ndim == 1:
      # A classifier predicts one class, which fills the picture.
      predictions = predictions[:, None, None]
    predictions = np.broadcast_to(predictions, labels.shape)
    self._reports.picture(step, images, labels, predictions)
