"""How well a network learns four images by heart, through the real step.

A network whose gradients, skips or sizes are wrong does not. The networks are
those of `configs/NAME.py`; what their recipes do against learning by
heart (augmentation, averaging) is off. By hand:

  python tests/models/overfitting.py fcn_8s segnet
"""

import functools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from config_files import load_config
from jaxseg import metrics
from jaxseg.data import shapes
from jaxseg.evaluation.inference import make_predict
from jaxseg.training import setup, step

# Four scenes of few and large figures: what a stride of 32 can draw.
SCENES = (87, 155, 159, 297)
STEPS = 200
LOOK_EVERY = 40
ENOUGH = 0.97  # stop there


def overfit(name: str, steps: int = STEPS, **model_fields) -> float:
  """The mIoU on four images after at most `steps` on nothing else.

  Args:
    name: of a network, and its file in `configs/`.
    steps: of training.
    **model_fields: fields of the network other than the preset's.
  """
  config = load_config(name)
  with config.unlocked():
    config.model.update(model_fields)
  config.data.loader = "resident"
  config.augment.update(flip=False, scale=(1.0, 1.0))
  config.optimizer.ema_decay = 0.0
  config.train.update(batch_size=len(SCENES), steps=steps)
  config.schedule.warmup_steps = min(config.schedule.warmup_steps, steps // 10)
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
  return _train(setup.create(config, mesh), mesh)


def draw_batch(indices) -> dict[str, np.ndarray]:
  """These training examples of `shapes` as a batch."""
  images, labels = zip(*(shapes.draw("train", i) for i in indices), strict=True)
  n = len(images)
  return {
    "image": np.stack(images),
    "label": np.stack(labels),
    "size": np.tile(np.asarray(shapes.SIZE, np.int32), (n, 1)),
    "index": np.arange(n, dtype=np.int32),
  }


def _train(experiment: setup.Experiment, mesh) -> float:
  state = experiment.fresh_state(mesh)
  model, task = experiment.model, experiment.task
  batch = jax.tree.map(jnp.asarray, draw_batch(SCENES))
  train_step = jax.jit(
    functools.partial(
      step.train_step,
      model=model,
      optimizer=experiment.optimizer,
      task=task,
      seed=experiment.seed,
    ),
    donate_argnums=0,
  )
  predict = jax.jit(make_predict(model, task, experiment.inference))
  miou = 0.0
  steps = experiment.options.steps
  for taken in range(1, steps + 1):
    state, _ = train_step(state, batch)
    if taken % LOOK_EVERY == 0 or taken == steps:
      predicted = predict(state.variables(), batch["image"])
      miou = _miou(batch["label"], predicted, task)
      if miou > ENOUGH:
        break
  return miou


def _miou(label, predicted, task) -> float:
  confusion = metrics.confusion_matrix(
    label,
    predicted,
    num_classes=task.num_classes,
    ignore_label=task.ignore_label,
  )
  return float(metrics.scores(np.asarray(confusion, np.int64))["miou"])


if __name__ == "__main__":
  for argument in sys.argv[1:]:
    began = time.monotonic()
    print(f"{argument}: mIoU {overfit(argument):.4f}", end="")
    print(f" in {time.monotonic() - began:.0f} s", flush=True)
