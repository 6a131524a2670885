"""Overfits the network of a config on four images, through the real step.

The network and its recipe are those of `configs/NAME.py`, without augmentation
and averaged weights, which work against memorisation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from config_files import load_config
from jaxseg import analysis, metrics
from jaxseg.data import shapes
from jaxseg.evaluation import scoring
from jaxseg.training import setup, step

# Scenes of few and large figures, which an output stride of 32 can draw.
SCENES = (87, 155, 159, 297)
STEPS = 200
STOP_AT = 0.97


def overfit(name: str) -> float:
  """Returns the mIoU on four images after at most `STEPS` steps on them.

  Args:
    name: Name of a network and of its file in `configs/`.
  """
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
  experiment = setup.create(_config(name), mesh)
  model, task = experiment.model, experiment.task
  train_step = functools.partial(
    step.train_step,
    model=model,
    optimizer=experiment.optimizer,
    task=task,
    seed=experiment.seed,
  )
  batch = jax.tree.map(jnp.asarray, draw_batch(SCENES))
  count_step = scoring.make_count_step(model, task, experiment.inference)

  def miou(state) -> float:
    counts, _ = count_step(state.variables(), batch)
    return metrics.scores(np.asarray(counts["confusion"], np.int64))["miou"]

  return analysis.overfit(
    jax.jit(train_step, donate_argnums=0),
    miou,
    experiment.fresh_state(mesh),
    batch,
    steps=STEPS,
    stop_at=STOP_AT,
  ).score


def draw_batch(indices) -> dict[str, np.ndarray]:
  """Returns these training examples of `shapes` as a batch."""
  images, labels = zip(*(shapes.draw("train", i) for i in indices), strict=True)
  n = len(images)
  return {
    "image": np.stack(images),
    "label": np.stack(labels),
    "size": np.tile(np.asarray(shapes.SIZE, np.int32), (n, 1)),
    "index": np.arange(n, dtype=np.int32),
  }


def _config(name: str):
  config = load_config(name)
  config.data.loader = "resident"
  config.augment.update(flip=False, scale=(1.0, 1.0))
  config.optimizer.ema_decay = 0.0
  config.train.update(batch_size=len(SCENES), steps=STEPS)
  warmup = min(config.schedule.warmup_steps, STEPS // 10)
  config.schedule.warmup_steps = warmup
  return config
