"""Scores and pictures of a state while it trains."""

from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict
import numpy as np

from jaxseg import data, sharding
from jaxseg.evaluation import evaluate, inference
from jaxseg.training.state import TrainState


class Validation:
  """Scores and pictures of a state on the evaluation split."""

  def __init__(self, config: ConfigDict, model: nn.Module, mesh, reports):
    self._config, self._mesh, self._reports = config, mesh, reports
    self._examples = data.num_examples(config, config.data.eval_split)
    self._eval_step = evaluate.make_eval_step(model, config, mesh)
    self._predict = jax.jit(
      inference.make_predict(model, config, mesh),
      out_shardings=sharding.replicated(mesh),
    )

  def batches(self):
    """Global batches of the whole split, padded to full ones."""
    return sharding.device_batches(
      data.eval_batches(
        self._config,
        self._config.data.eval_split,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
      ),
      self._mesh,
    )

  def __call__(self, state: TrainState, step: int) -> dict[str, Any]:
    """Evaluates, logs and draws; returns the scores."""
    config = self._config
    variables = state.variables()
    scores = evaluate.evaluate(
      self._eval_step,
      variables,
      self.batches(),
      class_names=config.data.class_names,
      absent=config.eval.absent,
      total=-(-self._examples // config.eval.batch_size),
    )
    self._reports.scalars(step, config.data.eval_split, evaluate.flat(scores))
    count = config.train.picture_count
    batch = next(iter(self.batches()))
    predictions = self._predict(variables, batch["image"])
    images, labels = _first((batch["image"], batch["label"]), count)
    predictions = np.asarray(predictions)[: len(images)]
    if predictions.ndim == 1:  # A classifier's class fills the picture.
      predictions = predictions[:, None, None]
    self._reports.picture(
      step, images, labels, np.broadcast_to(predictions, labels.shape)
    )
    return scores


def _first(arrays, count: int):
  """The first examples that this process holds of each global array."""
  return [np.asarray(a.addressable_shards[0].data)[:count] for a in arrays]
