"""The training loop: linear, from a configuration to a trained network."""

import functools
import itertools
import time
from typing import Any

from etils import epath
import jax
from ml_collections import ConfigDict
import numpy as np
from tqdm import tqdm

from jaxseg import files, sharding
from jaxseg.errors import UserError
from jaxseg.evaluation import tables
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.runs.workdir import claim
from jaxseg.training import setup
from jaxseg.training.batch_stats import make_recompute_batch_stats
from jaxseg.training.interruption import Interruption
from jaxseg.training.reports import Reports
from jaxseg.training.setup import Experiment
from jaxseg.training.state import TrainState
from jaxseg.training.step import train_step
from jaxseg.training.validation import Validation


def train(config: ConfigDict, workdir: epath.PathLike) -> dict[str, Any]:
  """Trains to `config.train.steps`, continuing what `workdir` holds.

  Args:
    config: A configuration; what only the data know is filled in.
    workdir: Receives config.json, checkpoints/, metrics.jsonl, TensorBoard
      events and pictures/.

  Returns:
    The scores of the final state on the evaluation split.

  Raises:
    UserError: Bad data, a bad field, a full disk, or a loss that is not
      finite.
  """
  workdir = files.to_path(workdir)
  mesh = sharding.make_mesh()
  experiment = setup.create(config, mesh)
  options = experiment.options
  chief = jax.process_index() == 0
  if chief:
    claim(experiment.config, workdir)
  _say(experiment.description)

  checkpoints = Checkpoints(
    workdir, keep_last=options.keep_last, metric=experiment.task.metric
  )
  if checkpoints.latest_step() is None:
    state = experiment.first_state(mesh)
  else:
    state = checkpoints.restore(experiment.fresh_state(mesh))
    _say(f"continuing {workdir} from step {int(state.step)}")
  first, last = int(state.step), options.steps
  reports = Reports(
    experiment.dataset, workdir, resume_step=first, enabled=chief
  )
  batches = train_batches(experiment, mesh, start_step=first)
  batch = next(batches)
  # Built before the step is compiled, which takes a while: it checks fields.
  validate = Validation(experiment, mesh, reports)
  step_fn = compile_step(experiment, mesh, state, batch)
  recompute_batch_stats = make_recompute_batch_stats(
    experiment.model,
    experiment.task,
    seed=experiment.seed,
    count=options.norm_batches,
    mesh=mesh,
  )

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
      check_finite(experiment, unread)
      unread = (step, metrics, batch["index"])
      batch = next(batches)
      bar.update()

      if step % options.log_every == 0 or step == last:
        check_finite(experiment, unread)
        seconds = time.perf_counter() - started
        values = {key: float(value) for key, value in metrics.items()}
        update = (step - 1) // experiment.accumulate
        values["learning_rate"] = float(experiment.learning_rate(update))
        values["images_per_second"] = (
          (step - started_at) * options.batch_size / seconds
        )
        bar.set_postfix(loss=f"{values['loss']:.3f}")
        reports.scalars(step, "train", values)
        started, started_at = time.perf_counter(), step

      scores = None
      stop = interruption.should_stop(step)
      if not stop and (step % options.eval_every == 0 or step == last):
        if options.norm_batches:
          following = train_batches(experiment, mesh, start_step=step)
          state = recompute_batch_stats(state, following)
        scores = validate(state, step)
        _say(f"step {step}: {tables.headline(scores)}")
        started, started_at = time.perf_counter(), step
      if stop or scores or step % options.checkpoint_every == 0:
        check_finite(experiment, unread)
        checkpoints.save(state, scores)
      if stop:
        checkpoints.close()
        _say(f"saved at step {step}; the same command continues from there")
        raise SystemExit(128 + interruption.signal)

  checkpoints.close()
  if scores is None:
    scores = validate(state, last)
  reports.close()
  _say(tables.format_table(scores, experiment.dataset.class_names))
  _say(f"work directory: {workdir} (best: step {checkpoints.best_step()})")
  _say(f"picture: {reports.picture_path(last)}")
  return scores


def train_batches(
  experiment: Experiment, mesh: jax.sharding.Mesh, *, start_step: int
):
  """Yields global batches start_step, start_step + 1, ... on the devices."""
  return sharding.device_batches(
    experiment.dataset.train_batches(
      start_step=start_step,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ),
    mesh,
  )


def compile_step(
  experiment: Experiment,
  mesh: jax.sharding.Mesh,
  state: TrainState,
  batch: dict[str, jax.Array],
):
  """Compiles the step ahead of time and reports how long that took."""
  step_fn = functools.partial(
    train_step,
    model=experiment.model,
    optimizer=experiment.optimizer,
    task=experiment.task,
    seed=experiment.seed,
    ema_decay=experiment.ema_decay,
  )
  replicated, split = sharding.replicated(mesh), sharding.batch_split(mesh)
  started = time.perf_counter()
  compiled = (
    jax.jit(
      step_fn,
      in_shardings=(replicated, split),
      out_shardings=(replicated, replicated),
      donate_argnums=0,
    )
    .lower(state, batch)
    .compile()
  )
  _say(
    f"step compiled for {mesh.size} {mesh.devices.flat[0].platform} device(s) "
    f"in {time.perf_counter() - started:.1f} s"
  )
  return compiled


def check_finite(experiment: Experiment, unread) -> None:
  """Stops on a loss or gradient that is not finite.

  Args:
    experiment: Names the examples.
    unread: None, or the step, its metrics, and the `index` of its batch.

  Raises:
    UserError: Names the step and the files of its batch.
  """
  if unread is None:
    return
  step, metrics, index = unread
  values = {key: float(value) for key, value in metrics.items()}
  if all(np.isfinite(value) for value in values.values()):
    return
  dataset = experiment.dataset
  mine = itertools.chain(
    *(np.asarray(s.data) for s in index.addressable_shards)
  )
  names = [dataset.example_name(dataset.train_split, int(i)) for i in mine]
  seen = ", ".join(f"{key} {value}" for key, value in values.items())
  raise UserError(
    f"step {step}: {seen}; examples: {', '.join(names)}; nothing of this step "
    "was saved: lower config.optimizer.learning_rate, add warm-up, or set "
    "config.optimizer.clip_norm, and look at these files"
  )


def _say(text: str) -> None:
  """Prints a line above the progress bar, in the first process only."""
  if jax.process_index() == 0:
    tqdm.write(text)
