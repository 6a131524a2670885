"""The training loop, from a configuration to a trained network."""

from collections.abc import Callable
import contextlib
import functools
import itertools
import time

from etils import epath
import jax
from ml_collections import ConfigDict
import numpy as np

from jaxseg import config_check, files, sharding
from jaxseg.errors import UserError
from jaxseg.runs import compilation
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.runs.lock import locked
from jaxseg.runs.workdir import claim, claim_data
from jaxseg.tasks.task import Scores
from jaxseg.training import final_scores, setup
from jaxseg.training.batch_stats import make_recompute_batch_stats
from jaxseg.training.interruption import Interruption
from jaxseg.training.progress import Progress, report
from jaxseg.training.reports import Reports, picture_path
from jaxseg.training.setup import Experiment
from jaxseg.training.state import TrainState
from jaxseg.training.step import train_step
from jaxseg.training.validation import Validation

Evaluate = Callable[[TrainState, int], tuple[TrainState, Scores]]


def train(config: ConfigDict, workdir: epath.PathLike) -> Scores:
  """Trains to `config.train.steps`, or continues the run in `workdir`.

  Args:
    config: A configuration. Fields that depend on the data are completed.
    workdir: Work directory, which receives config.json, checkpoints/,
      metrics.jsonl, scores.json, TensorBoard events and pictures/.

  Returns:
    The scores of the final state on the evaluation split.

  Raises:
    UserError: The data or a field is invalid, the work directory belongs to
      another run, the disk is full, or the loss is not finite.
  """
  config_check.check(config)
  workdir = files.to_path(workdir)
  mesh = sharding.mesh_for_training(
    config.train.batch_size, config.optimizer.accumulate
  )
  report(f"opening the data set {config.data.name}")
  experiment = setup.create(config, mesh)
  if jax.process_index() != 0:
    return _train(experiment, mesh, workdir)
  dataset = experiment.dataset
  splits = (dataset.train_split, dataset.eval_split)
  with locked(workdir):
    claim(experiment.config, workdir)
    claim_data(dataset.contents, splits, workdir)
    return _train(experiment, mesh, workdir)


def _train(
  experiment: Experiment, mesh: jax.sharding.Mesh, workdir: epath.Path
) -> Scores:
  """Trains in a work directory that belongs to this run; see `train`."""
  config, options = experiment.config, experiment.options
  report(experiment.description)
  compilation.keep(workdir)
  dataset = experiment.dataset
  train_split, eval_split = dataset.train_split, dataset.eval_split
  report(
    f"{dataset.splits[train_split]} images to train on ({train_split}), "
    f"{dataset.splits[eval_split]} to evaluate on ({eval_split})"
  )
  checkpoints = Checkpoints(
    workdir, keep_last=options.keep_last, metric=experiment.task.metric
  )
  scores = None
  origin = final_scores.origin(config, dataset.contents)
  if checkpoints.is_intact(options.steps):
    report(f"nothing left to train: {workdir} has all {options.steps} steps")
    scores = final_scores.read(workdir, origin)
  if scores is None:
    scores = _run(experiment, mesh, workdir, checkpoints)
    if jax.process_index() == 0:
      final_scores.write(scores, workdir, origin)
  report(experiment.task.table(scores))
  best = checkpoints.best_step()
  best = "no step has a score" if best is None else f"best: step {best}"
  report(f"work directory: {workdir} ({best})")
  if options.picture_count:
    report(f"picture: {picture_path(workdir, options.steps)}")
  return scores


def _run(
  experiment: Experiment,
  mesh: jax.sharding.Mesh,
  workdir: epath.Path,
  checkpoints: Checkpoints,
) -> Scores:
  """Takes the steps that are left and returns the scores of the final state."""
  last_step = experiment.options.steps
  state = _initial_state(experiment, mesh, checkpoints)
  first_step = int(state.step)
  reports = Reports(
    experiment.dataset,
    workdir,
    resume_step=first_step,
    enabled=jax.process_index() == 0,
  )
  with contextlib.closing(reports):
    # Created before the step is compiled, because it checks fields and
    # compiling takes a while.
    evaluate = make_evaluate(experiment, mesh, reports)
    if first_step < last_step:
      scores = _take_steps(
        experiment, mesh, state, evaluate, reports, checkpoints
      )
    else:
      _, scores = evaluate(state, last_step)
  checkpoints.close()
  return scores


def _initial_state(
  experiment: Experiment, mesh: jax.sharding.Mesh, checkpoints: Checkpoints
) -> TrainState:
  """Returns the state of the newest checkpoint, or that of a new run."""
  if checkpoints.latest_step() is None:
    report("creating the initial state")
    return experiment.first_state(mesh)
  state = checkpoints.restore(experiment.state_shapes(mesh))
  report(f"continuing from the checkpoint of step {int(state.step)}")
  return state


def make_evaluate(
  experiment: Experiment, mesh: jax.sharding.Mesh, reports: Reports
) -> Evaluate:
  """Returns a function that evaluates a train state after a step.

  It returns the state, with recomputed batch statistics if
  `train.norm_batches` is set, and its scores.
  """
  validate = Validation(experiment, mesh, reports)
  recompute_batch_stats = make_recompute_batch_stats(
    experiment.model,
    experiment.task,
    seed=experiment.seed,
    parts=experiment.parts,
    count=experiment.options.norm_batches,
    mesh=mesh,
  )

  def evaluate(state: TrainState, step: int) -> tuple[TrainState, Scores]:
    if experiment.options.norm_batches:
      following = train_batches(experiment, mesh, start_step=step)
      state = recompute_batch_stats(state, following)
    scores = validate(state, step)
    report(f"step {step}: {experiment.task.headline(scores)}")
    return state, scores

  return evaluate


def _take_steps(
  experiment: Experiment,
  mesh: jax.sharding.Mesh,
  state: TrainState,
  evaluate: Evaluate,
  reports: Reports,
  checkpoints: Checkpoints,
) -> Scores:
  """Takes all steps after those of `state`.

  Returns:
    The scores after the last step.

  Raises:
    SystemExit: A signal asked to stop. The step that it came in was finished
      and saved, and evaluated if that was due.
  """
  options, first_step = experiment.options, int(state.step)
  batches = train_batches(experiment, mesh, start_step=first_step)
  batch = next(batches)
  step_fn = compile_step(experiment, mesh, state, batch)
  progress = Progress(first_step, options.steps)
  pending = scores = None
  with Interruption() as interruption, progress:
    for step in range(first_step + 1, options.steps + 1):
      state, metrics = step_fn(state, batch)
      # The loss of the previous step is read while this step runs.
      check_finite(experiment, pending)
      pending = (step, metrics, batch["index"])
      batch = next(batches)
      progress.advance()

      is_last = step == options.steps
      if is_last or is_due(step, options.log_every):
        check_finite(experiment, pending)
        values = logged_values(experiment, metrics, step, progress)
        reports.scalars(step, "train", values)
      stop = interruption.should_stop(step)
      is_evaluated = is_last or is_due(step, options.eval_every)
      if stop or is_evaluated or is_due(step, options.checkpoint_every):
        check_finite(experiment, pending)
        scores = None
        if is_evaluated:
          # Also before a stop: the continued run does not repeat this step.
          state, scores = evaluate(state, step)
        checkpoints.save(state, scores)
        progress.restart(step)
      if stop and not is_last:
        checkpoints.close()
        report(f"saved at step {step}; the same command continues from there")
        raise SystemExit(128 + interruption.signal)
  return scores


def is_due(step: int, every: int) -> bool:
  """Returns whether something that happens every so many steps is due.

  Args:
    step: Number of steps taken.
    every: Number of steps between two times; 0 for never.
  """
  return every > 0 and step % every == 0


def logged_values(
  experiment: Experiment,
  metrics: dict[str, jax.Array],
  step: int,
  progress: Progress,
) -> dict[str, float]:
  """Returns the values that metrics.jsonl records of a training step.

  Args:
    experiment: Experiment with the schedule and the batch size.
    metrics: Metrics that the step returned.
    step: Number of steps taken.
    progress: Progress, which shows the loss and measures the speed.
  """
  values = {key: float(value) for key, value in metrics.items()}
  speed = progress.log(step, values["loss"])
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
  report("compiling the training step")
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
  report(
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
