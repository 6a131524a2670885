"""The training loop, from a configuration to a trained network."""

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
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.runs.lock import locked
from jaxseg.runs.workdir import claim, claim_data
from jaxseg.training import setup
from jaxseg.training.batch_stats import make_recompute_batch_stats
from jaxseg.training.interruption import Interruption
from jaxseg.training.reports import Reports
from jaxseg.training.setup import Experiment
from jaxseg.training.state import TrainState
from jaxseg.training.step import train_step
from jaxseg.training.validation import Validation


def train(config: ConfigDict, workdir: epath.PathLike) -> dict[str, Any]:
  """Trains to `config.train.steps`, or continues the run in `workdir`.

  Args:
    config: A configuration. Fields that depend on the data are completed.
    workdir: Work directory, which receives config.json, checkpoints/,
      metrics.jsonl, TensorBoard events and pictures/.

  Returns:
    The scores of the final state on the evaluation split.

  Raises:
    UserError: The data or a field is invalid, the work directory belongs to
      another run, the disk is full, or the loss is not finite.
  """
  workdir = files.to_path(workdir)
  mesh = sharding.mesh_for_training(
    config.train.batch_size, config.optimizer.accumulate
  )
  experiment = setup.create(config, mesh)
  if jax.process_index() != 0:
    return _train(experiment, mesh, workdir)
  dataset = experiment.dataset
  splits = (dataset.train_split, dataset.eval_split)
  with locked(workdir):
    claim(experiment.config, workdir)
    claim_data(dataset.contents(), splits, workdir)
    return _train(experiment, mesh, workdir)


def _train(
  experiment: Experiment, mesh: jax.sharding.Mesh, workdir: epath.Path
) -> dict[str, Any]:
  """Trains in a work directory that belongs to this run; see `train`."""
  options = experiment.options
  is_first_process = jax.process_index() == 0
  _print(experiment.description)

  checkpoints = Checkpoints(
    workdir, keep_last=options.keep_last, metric=experiment.task.metric
  )
  if checkpoints.latest_step() is None:
    state = experiment.first_state(mesh)
  else:
    state = checkpoints.restore(experiment.fresh_state(mesh))
    _print(f"continuing {workdir} from step {int(state.step)}")
  first_step, last_step = int(state.step), options.steps
  reports = Reports(
    experiment.dataset,
    workdir,
    resume_step=first_step,
    enabled=is_first_process,
  )
  batches = train_batches(experiment, mesh, start_step=first_step)
  batch = next(batches)
  # Created before the step is compiled, because it checks fields and compiling
  # takes a while.
  validate = Validation(experiment, mesh, reports)
  steps = range(first_step + 1, last_step + 1)
  step_fn = compile_step(experiment, mesh, state, batch) if steps else None
  recompute_batch_stats = make_recompute_batch_stats(
    experiment.model,
    experiment.task,
    seed=experiment.seed,
    parts=experiment.parts,
    count=options.norm_batches,
    mesh=mesh,
  )

  scores, pending = None, None
  bar = tqdm(
    total=last_step,
    initial=first_step,
    desc="train",
    unit="step",
    disable=not is_first_process,
    dynamic_ncols=True,
  )
  with Interruption() as interruption, bar:
    throughput = Throughput(first_step)
    for step in steps:
      state, metrics = step_fn(state, batch)
      # The loss of the previous step is read while this step runs.
      check_finite(experiment, pending)
      pending = (step, metrics, batch["index"])
      batch = next(batches)
      bar.update()

      if is_due(step, options.log_every) or step == last_step:
        check_finite(experiment, pending)
        values = logged_values(experiment, metrics, step, throughput)
        bar.set_postfix(loss=f"{values['loss']:.3f}")
        reports.scalars(step, "train", values)
        throughput.restart(step)

      scores = None
      stop = interruption.should_stop(step)
      if not stop and (is_due(step, options.eval_every) or step == last_step):
        if options.norm_batches:
          following = train_batches(experiment, mesh, start_step=step)
          state = recompute_batch_stats(state, following)
        scores = validate(state, step)
        _print(f"step {step}: {experiment.task.headline(scores)}")
        throughput.restart(step)
      if stop or scores or is_due(step, options.checkpoint_every):
        check_finite(experiment, pending)
        checkpoints.save(state, scores)
      if stop:
        checkpoints.close()
        _print(f"saved at step {step}; the same command continues from there")
        raise SystemExit(128 + interruption.signal)

  checkpoints.close()
  if scores is None:
    scores = validate(state, last_step)
  reports.close()
  _print(experiment.task.table(scores))
  best = checkpoints.best_step()
  best = "no step has a score" if best is None else f"best: step {best}"
  _print(f"work directory: {workdir} ({best})")
  if options.picture_count:
    _print(f"picture: {reports.picture_path(last_step)}")
  return scores


def is_due(step: int, every: int) -> bool:
  """Returns whether something that happens every so many steps is due.

  Args:
    step: Number of steps taken.
    every: Number of steps between two times; 0 for never.
  """
  return every > 0 and step % every == 0


class Throughput:
  """Measures the steps per second since the last log line or evaluation."""

  def __init__(self, step: int):
    """Starts to measure after `step`."""
    self.restart(step)

  def restart(self, step: int) -> None:
    """Starts again after `step`."""
    self._time, self._step = time.perf_counter(), step

  def steps_per_second(self, step: int) -> float:
    """Returns the mean until `step`, which has just finished."""
    return (step - self._step) / (time.perf_counter() - self._time)


def logged_values(
  experiment: Experiment,
  metrics: dict[str, jax.Array],
  step: int,
  throughput: Throughput,
) -> dict[str, float]:
  """Returns the values that metrics.jsonl records of a training step.

  Args:
    experiment: Experiment with the schedule and the batch size.
    metrics: Metrics that the step returned.
    step: Number of steps taken.
    throughput: Speed of the steps since the last log line.
  """
  speed = throughput.steps_per_second(step)
  values = {key: float(value) for key, value in metrics.items()}
  values["learning_rate"] = float(experiment.learning_rate(step - 1))
  values["images_per_second"] = speed * experiment.options.batch_size
  return values


def train_batches(
  experiment: Experiment, mesh: jax.sharding.Mesh, *, start_step: int
):
  """Yields global batches start_step, start_step + 1, ... on the devices.

  Args:
    experiment: Experiment with the data set.
    mesh: Devices that batches are split over.
    start_step: Step of the first batch.
  """
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
  """Compiles the training step and prints how long that took.

  Args:
    experiment: Experiment with the model, the optimizer and the task.
    mesh: Devices that batches are split over.
    state: A train state, which gives the shapes.
    batch: A batch, which gives the shapes.

  Returns:
    A function of (state, batch) to (state, metrics), as `train_step`. It
    donates the memory of the state.
  """
  step_fn = functools.partial(
    train_step,
    model=experiment.model,
    optimizer=experiment.optimizer,
    task=experiment.task,
    seed=experiment.seed,
    parts=experiment.parts,
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
  _print(
    f"step compiled for {mesh.size} {mesh.devices.flat[0].platform} device(s) "
    f"in {time.perf_counter() - started:.1f} s"
  )
  return compiled


def check_finite(
  experiment: Experiment,
  pending: tuple[int, dict[str, jax.Array], jax.Array] | None,
) -> None:
  """Checks that the loss and the gradient of a step are finite.

  Args:
    experiment: Experiment with the data set.
    pending: The step, its metrics and the `index` of its batch, or None if
      there is no step to check.

  Raises:
    UserError: The message names the step and the files of its batch.
  """
  if pending is None:
    return
  step, metrics, index = pending
  values = {key: float(value) for key, value in metrics.items()}
  if all(np.isfinite(value) for value in values.values()):
    return
  dataset = experiment.dataset
  local = itertools.chain(
    *(np.asarray(s.data) for s in index.addressable_shards)
  )
  names = [dataset.example_name(dataset.train_split, int(i)) for i in local]
  found = ", ".join(f"{key} {value}" for key, value in values.items())
  raise UserError(
    f"step {step}: {found}; expected finite numbers; examples: "
    f"{', '.join(names)}; this step was not saved: lower "
    "config.optimizer.learning_rate, add warm-up, or set "
    "config.optimizer.clip_norm, and check these files"
  )


def _print(text: str) -> None:
  """Prints a line above the progress bar, in the first process only."""
  if jax.process_index() == 0:
    tqdm.write(text)
