"""The training loop: linear, from a configuration to a trained network."""

import functools
import itertools
from pathlib import Path
import time

import flax.linen as nn
import jax
from ml_collections import ConfigDict
import numpy as np
from tqdm import tqdm

from jaxseg import data, sharding
from jaxseg.errors import UserError
from jaxseg.evaluation import evaluate
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.runs.workdir import claim
from jaxseg.training.interruption import Interruption
from jaxseg.training.reports import Reports
from jaxseg.training.setup import initialise, start
from jaxseg.training.state import TrainState
from jaxseg.training.statistics import Settle
from jaxseg.training.step import Recipe, train_step
from jaxseg.training.validation import Validation


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
  # Before the step is compiled, which takes a while: it may refuse its fields.
  validate = Validation(config, model, mesh, reports)
  recipe = Recipe.from_config(config)
  step_fn = compile_step(config, model, optimizer, recipe, mesh, state, batch)
  norm_batches = config.train.norm_batches
  settle = Settle(model, recipe, norm_batches, mesh)

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
        check_finite(config, unread)
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
        if norm_batches:
          state = settle(state, train_batches(config, mesh, start_step=step))
        scores = validate(state, step)
        _say(f"step {step}: {evaluate.headline(scores)}")
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
    scores = validate(state, last)
  reports.close()
  _say(evaluate.format_table(scores, config.data.class_names))
  _say(f"work directory: {workdir} (best: step {checkpoints.best_step()})")
  _say(f"picture: {reports.picture_path(last)}")
  return state


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
  config: ConfigDict, model: nn.Module, optimizer, recipe, mesh, state, batch
):
  """Compiles the step ahead of time, saying how long it took."""
  step_fn = functools.partial(
    train_step, model=model, optimizer=optimizer, recipe=recipe
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
