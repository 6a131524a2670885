"""Evaluates a network during training and draws its predictions."""

from typing import Any

import jax
import numpy as np

from jaxseg import sharding
from jaxseg.data.placement import resize_image
from jaxseg.evaluation import scoring
from jaxseg.tasks import tables
from jaxseg.training.reports import Reports
from jaxseg.training.setup import Experiment
from jaxseg.training.state import TrainState

Row = dict[str, np.ndarray]


class Validation:
  """Scores a train state on the evaluation split and draws predictions."""

  def __init__(
    self, experiment: Experiment, mesh: jax.sharding.Mesh, reports: Reports
  ):
    self._experiment, self._mesh, self._reports = experiment, mesh, reports
    self._count_step = scoring.make_count_step(
      experiment.model, experiment.task, experiment.inference, mesh
    )
    self._batches = experiment.dataset.eval_batches(
      process_index=jax.process_index(), process_count=jax.process_count()
    )
    if len(self._batches.shapes) > 1 and jax.process_index() == 0:
      print(self._batches)
    count = experiment.options.picture_count
    self._first_rows = jax.jit(
      lambda rows: jax.tree.map(lambda x: x[:count], rows),
      out_shardings=sharding.replicated(mesh),
    )

  def __call__(self, state: TrainState, step: int) -> dict[str, Any]:
    """Writes scores and a picture to the work directory; returns the scores."""
    drawn: list[Row] = []
    scores = scoring.score(
      self._count_step,
      state.variables(),
      sharding.device_batches(self._batches, self._mesh),
      self._experiment.task,
      total=len(self._batches),
      watch=lambda batch, ids: self._collect(drawn, batch, ids),
    )
    split = self._experiment.dataset.eval_split
    self._reports.scalars(step, split, tables.flat(scores))
    if drawn:
      self._reports.picture(step, *_cells(drawn))
    return scores

  def _collect(
    self, drawn: list[Row], batch: dict[str, jax.Array], ids: jax.Array
  ) -> None:
    """Adds examples of a batch to `drawn` until there are enough.

    All processes call it, because the rows of a batch lie on all devices.
    """
    missing = self._experiment.options.picture_count - len(drawn)
    if missing <= 0:
      return
    rows = jax.device_get(self._first_rows({**batch, "ids": ids}))
    examples = np.flatnonzero(rows["index"] >= 0)[:missing]
    drawn += [{key: x[i] for key, x in rows.items()} for i in examples]


def _cells(rows: list[Row]) -> tuple[list[np.ndarray], ...]:
  """Returns images, labels and predictions, all of the area of the label."""
  images, labels, predictions = [], [], []
  for row in rows:
    height, width = size = tuple(int(side) for side in row["size"])
    images.append(resize_image(row["image"], size))
    labels.append(row["label"][:height, :width])
    # A classifier predicts one class, which fills the picture.
    ids = np.broadcast_to(row["ids"], row["label"].shape)
    predictions.append(ids[:height, :width])
  return images, labels, predictions
