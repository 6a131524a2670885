"""Checkpoints of train states: orbax's CheckpointManager with our policies.

- Saving is asynchronous and atomic: a save that is killed leaves the earlier
  checkpoints intact.
- The last N checkpoints and the one with the best validation score are kept.
- A damaged checkpoint is recognised by its checksums, and the one before it is
  restored instead.
- Restoring places the arrays on the current mesh, whatever devices saved
  them.
"""

from collections.abc import Callable, Sequence
import functools
import json
import math
from typing import Any

from etils import epath
import jax
from jax.experimental import multihost_utils
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxseg import files
from jaxseg.data.notes import note
from jaxseg.errors import UserError
from jaxseg.runs import checksums

_SAVE_FAILED = "cannot write a checkpoint"
_SAVE_ADVICE = (
  "earlier checkpoints are intact; free some space and run the same command"
)


class DamagedError(UserError):
  """A checkpoint that cannot be restored because a file of it is damaged."""


class _Handler(ocp.StandardCheckpointHandler):
  """Writes checksums into a checkpoint before it gets its final name."""

  def finalize(self, directory: epath.Path) -> None:
    super().finalize(directory)
    checksums.write(directory)


@ocp.args.register_with_handler(_Handler, for_save=True, for_restore=True)
class _SaveArgs(ocp.args.StandardSave):
  """Arguments by which orbax finds `_Handler`."""


class Checkpoints:
  """Saves and restores train states under `workdir/checkpoints`.

  Reading changes nothing and needs no lock, so that a run can be evaluated
  while it trains.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    keep_last: int = 1,
    metric: str = "miou",
  ):
    """Selects the checkpoints of a work directory.

    Args:
      workdir: The work directory; `save` creates `checkpoints` in it.
      keep_last: Number of most recent checkpoints to keep.
      metric: Name of the score that selects the best checkpoint; the largest
        value is the best.

    Raises:
      UserError: gs:// lacks a package.
    """
    self._directory = files.to_path(workdir) / "checkpoints"
    if files.is_remote(workdir):
      _check_google_client(workdir)
    else:
      self._directory = self._directory.resolve()
    self._metric = metric
    self._keep_last = keep_last

  @functools.cached_property
  def _manager(self) -> ocp.CheckpointManager:
    """The manager, which is created by the first `save`."""
    keep = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(self._keep_last),
        checkpoint_managers.BestN(
          get_metric_fn=self._finite_score,
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
      ]
    )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=keep,
      best_fn=self._finite_score,
      enable_async_checkpointing=True,
    )
    return ocp.CheckpointManager(
      self._directory, item_handlers=_Handler(), options=options
    )

  def _finite_score(self, metrics: dict[str, float]) -> float:
    """Returns the score, or minus infinity if it is undefined (NaN)."""
    score = float(metrics[self._metric])
    return -math.inf if math.isnan(score) else score

  def _save_errors(self):
    return files.disk_errors(self._directory, _SAVE_FAILED, advice=_SAVE_ADVICE)

  def save(self, state: Any, metrics: dict[str, float] | None = None) -> None:
    """Starts saving; returns when the arrays are copied off the device.

    Args:
      state: The train state. It is saved under its own step; a step that has
        a checkpoint already is skipped.
      metrics: Scores of this state, if it was evaluated. Only `metric` is
        saved with the checkpoint. An undefined score (NaN) is not saved.

    Raises:
      UserError: The disk is full or refuses the checkpoint.
    """
    step = int(state.step)
    self.wait()
    if step in self.steps():
      return
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20
    files.check_space(self._directory, size, _SAVE_FAILED, advice=_SAVE_ADVICE)
    score = None
    if metrics is not None and not math.isnan(metrics[self._metric]):
      score = {self._metric: float(metrics[self._metric])}
    with self._save_errors():
      self._manager.save(step, args=_SaveArgs(state), metrics=score)

  def wait(self) -> None:
    """Returns when all checkpoints are complete.

    Raises:
      UserError: The disk is full or refuses a checkpoint.
    """
    if self._has_saved():
      with self._save_errors():
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

  def close(self) -> None:
    """Waits for all checkpoints and stops the manager's threads."""
    self.wait()
    if self._has_saved():
      self._manager.close()

  def _has_saved(self) -> bool:
    return "_manager" in vars(self)

  def steps(self) -> list[int]:
    """Returns the steps of all complete checkpoints in ascending order."""
    return saved_steps(self._directory)

  def latest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint."""
    return max(self.steps(), default=None)

  def best_step(self) -> int | None:
    """Returns the step of the checkpoint with the best score.

    None if no checkpoint has a score.
    """
    ranks = [(self._rank(step), step) for step in self.steps()]
    return max((r for r in ranks if math.isfinite(r[0])), default=(0, None))[1]

  def ranked_steps(self) -> list[int]:
    """Returns all steps, the best score first, and those without a score last.

    Among equal scores the latest is first. A checkpoint with a damaged score
    may be the best, so that it precedes all others.
    """
    return sorted(self.steps()[::-1], key=self._rank, reverse=True)

  def _rank(self, step: int) -> float:
    try:
      score = self._score(step)
    except DamagedError:
      return math.inf
    return -math.inf if score is None else score

  def _score(self, step: int) -> float | None:
    """Returns the score of a checkpoint, or None if it was not evaluated.

    Raises:
      DamagedError: The file of the score is damaged, or there are no arrays.
    """
    folder = self._directory / str(step)
    if not (folder / "default").is_dir():
      raise _damaged(step, "default: missing")
    path = folder / "metrics" / "metrics"
    if not path.exists():
      return None
    try:
      return self._finite_score(json.loads(path.read_bytes()))
    except (IsADirectoryError, KeyError, TypeError, ValueError) as error:
      raise _damaged(step, "metrics/metrics: not a score in JSON") from error

  def restore(self, like: Any, step: int | None = None) -> Any:
    """Restores a train state onto the shardings of a template.

    Args:
      like: Arrays or shape structs of the state to restore.
      step: Step of the checkpoint. Default: the newest intact one. The damaged
        ones after it are then deleted, so that their steps are saved again.

    Raises:
      UserError: The checkpoint, or every one, is damaged or cannot be read.
    """

    def read(folder: epath.Path) -> Any:
      args = ocp.args.StandardRestore(like)
      return ocp.StandardCheckpointHandler().restore(folder, args=args)

    if step is not None:
      return self._read(step, read)
    steps = self.steps()[::-1]
    found, state = self._first_intact(steps, read, "continuing from")
    self._delete(steps[: steps.index(found)])
    for older in steps[steps.index(found) + 1 :]:
      if self._rank(older) == math.inf:
        # The manager reads every score and would stop at this one.
        self._delete([older])
    return state

  def restore_as_saved(self, step: int) -> dict[str, Any]:
    """Restores a nested dict of arrays on one device, without a template.

    Raises:
      UserError: The checkpoint is damaged or cannot be read.
    """
    return self._read(step, _read_tree)

  def restore_first(self, steps: Sequence[int]) -> tuple[int, dict[str, Any]]:
    """Restores the first intact checkpoint of `steps` as `restore_as_saved`.

    Returns:
      Its step and its arrays. A note names the damaged ones before it.

    Raises:
      UserError: All of these checkpoints are damaged.
    """
    return self._first_intact(steps, _read_tree, "using")

  def _first_intact(
    self,
    steps: Sequence[int],
    read: Callable[[epath.Path], Any],
    consequence: str,
  ) -> tuple[int, Any]:
    """Reads the first checkpoint that is not damaged; notes name the others."""
    damages: list[DamagedError] = []
    for step in steps:
      try:
        state = self._read(step, read)
      except DamagedError as error:
        damages.append(error)
        continue
      if damages:
        note(f"{'; '.join(map(str, damages))}; {consequence} step {step}")
      return step, state
    raise UserError(
      f"{self._directory}: no checkpoint is intact: "
      f"{'; '.join(map(str, damages))}; restore these files from a copy, or "
      "train in another --workdir"
    )

  def is_intact(self, step: int) -> bool:
    """Returns whether there is a checkpoint of a step without damage."""
    if step not in self.steps():
      return False
    try:
      with _read_errors(self._directory / str(step)):
        self._check_files(step)
    except DamagedError:
      return False
    return True

  def _check_files(self, step: int) -> None:
    """Raises DamagedError if a file of a checkpoint is damaged."""
    self._score(step)
    folder = self._directory / str(step) / "default"
    if damage := checksums.find_damage(folder):
      raise _damaged(step, f"default/{damage}")

  def _read(self, step: int, read: Callable[[epath.Path], Any]) -> Any:
    """Checks the files of a checkpoint and reads its arrays.

    Raises:
      DamagedError: A file is damaged.
      UserError: The disk refuses to read, or the arrays have other names or
        shapes than expected.
    """
    folder = self._directory / str(step) / "default"
    with _read_errors(folder.parent):
      self._check_files(step)
      try:
        return read(folder)
      except Exception as error:
        is_missing = isinstance(error, FileNotFoundError)
        if isinstance(error, OSError) and not is_missing:
          raise
        if not (folder / checksums.NAME).exists():
          # tensorstore raises a plain Exception for a file that is damaged.
          raise _damaged(
            step,
            "default: the arrays cannot be read, or are those of another train "
            "state",
          ) from error
        if not isinstance(error, ValueError):
          raise
        raise UserError(
          f"{folder.parent}: holds another train state than this version of "
          "jaxseg has for this configuration; choose another --workdir"
        ) from error

  def _delete(self, steps: Sequence[int]) -> None:
    """Deletes checkpoints when all processes have read what they need."""
    if not steps:
      return
    _wait_for_processes("before deleting damaged checkpoints")
    if jax.process_index() == 0:
      for step in steps:
        with self._save_errors():
          (self._directory / str(step)).rmtree()
    _wait_for_processes("after deleting damaged checkpoints")


def saved_steps(directory: epath.Path) -> list[int]:
  """Returns the steps of the complete checkpoints in a folder, ascending."""
  with _read_errors(directory):
    if not directory.exists():
      return []
    names = ocp.path.step.standard_name_format()
    return sorted(found.step for found in names.find_all(directory))


def _read_tree(folder: epath.Path) -> dict[str, Any]:
  """Reads all arrays of a checkpoint onto one device of this process."""
  handler = ocp.PyTreeCheckpointHandler()
  tree = handler.metadata(folder).tree
  # The devices that saved the checkpoint may not exist on this machine.
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  restore_args = ocp.ArrayRestoreArgs(sharding=sharding)
  return handler.restore(
    folder,
    args=ocp.args.PyTreeRestore(
      item=tree, restore_args=jax.tree.map(lambda _: restore_args, tree)
    ),
  )


def _wait_for_processes(name: str) -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def _damaged(step: int, what: str) -> DamagedError:
  return DamagedError(f"checkpoint {step} is damaged ({what})")


def _read_errors(path: epath.Path):
  return files.disk_errors(
    path,
    "cannot read the checkpoint",
    advice="check that the folder is complete and that you may read it",
  )


def _check_google_client(workdir: epath.PathLike) -> None:
  """Checks for the package with which orbax deletes checkpoints on gs://.

  Raises:
    UserError: The package is missing.
  """
  try:
    import google.cloud.storage  # noqa: F401
  except ImportError as error:
    raise UserError(
      f"{workdir}: checkpoints on gs:// need the package google-cloud-storage; "
      "pip install 'jaxseg[gcs]'"
    ) from error
