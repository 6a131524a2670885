"""The training loop: linear, from a configuration to a trained network."""

import functools
import itertools
from pathlib import Path
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
from tqdm import tqdm

from jaxseg import data, sharding, weights
from jaxseg.errors import UserError
from jaxseg.evaluation import evaluate, inference
from jaxseg.training import optimizers
from jaxseg.training.checkpoints import (
  Checkpoints,
  create_model,
  load_run,
)
from jaxseg.training.interruption import Interruption
from jaxseg.training.reports import Reports
from jaxseg.training.state import TrainState, create_state
from jaxseg.training.step import Recipe, train_step
from jaxseg.training.workdir import claim


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> TrainState:
  """Trains to `config.train.steps`, continuing what `workdir` holds.

  Args:
    config: a configuration; `data.resolve` completes it.
    workdir: config.json, checkpoints/, metrics.jsonl, TensorBoard events and
      pictures/ are written there.

  Returns:
    The final state.

  Raises:
    UserError: bad data, a bad field, a full disk, a non-finite loss.
  """
  workdir = Path(workdir)
  mesh = sharding.make_mesh()
  for field in ("train", "eval"):
    sharding.check_batch_size(
      config[field].batch_size, mesh, f"config.{field}.batch_size"
    )
  config = data.resolve(config)
  chief = jax.process_index() == 0
  if chief:
    claim(config, workdir)

  model, optimizer, rate, state = start(config, mesh)
  checkpoints = Checkpoints(workdir, keep_last=config.train.keep_last)
  if checkpoints.latest_step() is None:
    state = initialise(config, model, state, mesh)
  else:
    state = checkpoints.restore(state)
    _say(f"continuing {workdir} from step {int(state.step)}")
  first, last = int(state.step), config.train.steps
  reports = Reports(config, workdir, resume_step=first, enabled=chief)
  batches = train_batches(config, mesh, start_step=first)
  batch = next(batches)
  step_fn = compile_step(config, model, optimizer, mesh, state, batch)
  evaluation = Evaluation(config, model, mesh, reports)

  scores, unread = None, None
  bar = tqdm(
    total=last,
    initial=first,
    desc="train",
    unit="step",
    disable=not chief,
    dynamic_ncols=True,
  )
  with Interruption() as interruption, bar:
    started, started_at = time.perf_counter(), first
    for step in range(first + 1, last + 1):
      state, metrics = step_fn(state, batch)
      # Reading the previous step's loss does not wait for this one.
      check_finite(config, unread)
      unread = (step, metrics, batch["index"])
      batch = next(batches)
      bar.update()

      if step % config.train.log_every == 0 or step == last:
        seconds = time.perf_counter() - started
        values = {key: float(value) for key, value in metrics.items()}
        values["learning_rate"] = float(
          rate((step - 1) // config.optimizer.accumulate)
        )
        values["images_per_second"] = (
          (step - started_at) * config.train.batch_size / seconds
        )
        bar.set_postfix(loss=f"{values['loss']:.3f}")
        reports.scalars(step, "train", values)
        started, started_at = time.perf_counter(), step

      scores = None
      stop = interruption.agreed(step, config.train.log_every)
      if not stop and (step % config.train.eval_every == 0 or step == last):
        scores = evaluation(state, step)
        bar.write(f"step {step}: {evaluate.headline(scores)}")
        started, started_at = time.perf_counter(), step
      if stop or scores or step % config.train.checkpoint_every == 0:
        check_finite(config, unread)
        checkpoints.save(state, scores)
      if stop:
        checkpoints.close()
        _say(f"saved at step {step}; the same command continues from there")
        raise SystemExit(128 + interruption.signal)

  checkpoints.close()
  if scores is None:
    scores = evaluation(state, last)
  reports.close()
  _say(evaluate.format_table(scores, config.data.class_names))
  _say(f"work directory: {workdir} (best: step {checkpoints.best_step()})")
  _say(f"picture: {reports.picture_path(last)}")
  return state


def start(
  config: ConfigDict, mesh: jax.sharding.Mesh
) -> tuple[nn.Module, Any, optax.Schedule, TrainState]:
  """Network, optimizer, learning rate, and a state born over the mesh."""
  model = create_model(config)
  key = jax.random.key(config.seed)
  image_shape = (1, *config.augment.crop, 3)
  variables = jax.eval_shape(
    lambda: model.init(key, jnp.zeros(image_shape), train=False)
  )
  rate = optimizers.schedule(
    config.schedule,
    peak=config.optimizer.learning_rate,
    steps=-(-config.train.steps // config.optimizer.accumulate),
  )
  optimizer = optimizers.create(config.optimizer, rate, variables["params"])
  init = functools.partial(
    create_state,
    model,
    optimizer,
    key,
    image_shape,
    ema=config.optimizer.ema_decay > 0,
  )
  state = jax.jit(init, out_shardings=sharding.replicated(mesh))()
  return model, optimizer, rate, state


def initialise(
  config: ConfigDict, model: nn.Module, state: TrainState, mesh
) -> TrainState:
  """Puts what `config.init` names into a fresh state."""
  if not (config.init.model or config.init.backbone):
    return state
  variables = weights.initialise(
    model,
    {"params": state.params, "batch_stats": state.batch_stats},
    model=config.init.model,
    backbone=config.init.backbone,
    skip=config.init.skip,
    read_workdir=lambda path: load_run(path).variables,
  )
  variables = jax.device_put(variables, sharding.replicated(mesh))
  ema = state.ema if state.ema is None else variables["params"]
  return state.replace(
    params=variables["params"], batch_stats=variables["batch_stats"], ema=ema
  )


def train_batches(config: ConfigDict, mesh, *, start_step: int):
  """Global batches `start_step`, `start_step + 1`, ... on the devices."""
  return sharding.device_batches(
    data.train_batches(
      config,
      start_step=start_step,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ),
    mesh,
  )


def compile_step(
  config: ConfigDict, model: nn.Module, optimizer, mesh, state, batch
):
  """Compiles the step ahead of time, saying how long it took."""
  step_fn = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    recipe=Recipe.from_config(config),
  )
  whole, split = sharding.replicated(mesh), sharding.batch_split(mesh)
  started = time.perf_counter()
  compiled = (
    jax.jit(
      step_fn,
      in_shardings=(whole, split),
      out_shardings=(whole, whole),
      donate_argnums=0,
    )
    .lower(state, batch)
    .compile()
  )
  parameters = sum(p.size for p in jax.tree.leaves(state.params))
  _say(
    f"{config.model.name}: {parameters:,} parameters; step compiled for "
    f"{mesh.size} {mesh.devices.flat[0].platform} device(s) in "
    f"{time.perf_counter() - started:.1f} s"
  )
  return compiled


class Evaluation:
  """Scores and pictures of a state on the evaluation split."""

  def __init__(self, config: ConfigDict, model: nn.Module, mesh, reports):
    self._config, self._mesh, self._reports = config, mesh, reports
    self._examples = data.num_examples(config, config.data.eval_split)
    self._eval_step = evaluate.make_eval_step(model, config, mesh)
    self._predict = jax.jit(
      inference.make_predict(model, config),
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


def check_finite(config: ConfigDict, unread) -> None:
  """Stops on a loss or gradient that is not finite, naming the examples.

  Raises:
    UserError: names the step and the files of its batch.
  """
  if unread is None:
    return
  step, metrics, index = unread
  values = {key: float(value) for key, value in metrics.items()}
  if all(np.isfinite(value) for value in values.values()):
    return
  split = config.data.train_split
  mine = itertools.chain(
    *(np.asarray(s.data) for s in index.addressable_shards)
  )
  names = [data.example_name(config, split, int(i)) for i in mine]
  seen = ", ".join(f"{key} {value}" for key, value in values.items())
  raise UserError(
    f"step {step}: {seen}; examples: {', '.join(names)}; nothing of this step "
    "was saved: lower config.optimizer.learning_rate, add warm-up, or set "
    "config.optimizer.clip_norm, and look at these files"
  )


def _say(text: str) -> None:
  if jax.process_index() == 0:
    tqdm.write(text)
