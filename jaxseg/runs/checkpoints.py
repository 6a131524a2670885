"""Checkpoints of train states: orbax's CheckpointManager with our policies.

- Saving is asynchronous and atomic: a save that is killed leaves the earlier
  checkpoints intact.
- The last N checkpoints and the one with the best validation score are kept.
- Restoring places the arrays on the current mesh, whatever devices saved
  them.
"""

from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxseg import files
from jaxseg.errors import UserError

_SAVE_FAILED = "cannot write a checkpoint"
_SAVE_ADVICE = (
  "earlier checkpoints are intact; free some space and run the same command"
)


class Checkpoints:
  """Saves and restores train states under `workdir/checkpoints`."""

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    keep_last: int = 1,
    metric: str = "miou",
  ):
    """Opens the checkpoints of a work directory.

    Args:
      workdir: The work directory; `checkpoints` is created in it.
      keep_last: Number of most recent checkpoints to keep.
      metric: Name of the score that selects the best checkpoint; the largest
        value is the best.

    Raises:
      UserError: The disk refuses the folder, or gs:// lacks a package.
    """
    self._directory = files.to_path(workdir) / "checkpoints"
    if files.is_remote(workdir):
      _check_google_client(workdir)
    else:
      self._directory = self._directory.resolve()
    self._metric = metric
    keep = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep_last),
        checkpoint_managers.BestN(
          get_metric_fn=self._score,
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
      ]
    )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=keep,
      best_fn=self._score,
      enable_async_checkpointing=True,
    )
    with self._save_errors():
      self._manager = ocp.CheckpointManager(self._directory, options=options)

  def _score(self, metrics: dict[str, float]) -> float:
    return metrics[self._metric]

  def _save_errors(self):
    return files.disk_errors(self._directory, _SAVE_FAILED, advice=_SAVE_ADVICE)

  def save(self, state: Any, metrics: dict[str, float] | None = None) -> None:
    """Starts saving; returns when the arrays are copied off the device.

    Args:
      state: The train state. It is saved under its own step; a step that has
        a checkpoint already is skipped.
      metrics: Scores of this state, if it was evaluated. Only `metric` is
        saved with the checkpoint.

    Raises:
      UserError: The disk is full or refuses the checkpoint.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self.wait()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20
    files.check_space(self._directory, size, _SAVE_FAILED, advice=_SAVE_ADVICE)
    if metrics is not None:
      metrics = {self._metric: self._score(metrics)}
    with self._save_errors():
      self._manager.save(
        step, args=ocp.args.StandardSave(state), metrics=metrics
      )

  def wait(self) -> None:
    """Returns when all checkpoints are complete.

    Raises:
      UserError: The disk is full or refuses a checkpoint.
    """
    with self._save_errors():
      self._manager.wait_until_finished()
      self._manager.check_for_errors()

  def close(self) -> None:
    """Waits for all checkpoints and stops the manager's threads."""
    self.wait()
    self._manager.close()

  def latest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint."""
    return self._manager.latest_step()

  def best_step(self) -> int | None:
    """Returns the step of the checkpoint with the best score.

    None if no checkpoint has a score.
    """
    return self._manager.best_step()

  def steps(self) -> list[int]:
    """Returns the steps of all complete checkpoints in ascending order."""
    return sorted(self._manager.all_steps())

  def restore(self, like: Any, step: int | None = None) -> Any:
    """Restores a train state onto the shardings of a template.

    Args:
      like: Arrays or shape structs of the state to restore.
      step: Step of the checkpoint, by default the latest.

    Raises:
      UserError: The disk refuses to read the checkpoint.
    """
    step = self.latest_step() if step is None else step
    with self._read_errors(step):
      return self._manager.restore(step, args=ocp.args.StandardRestore(like))

  def restore_as_saved(self, step: int) -> dict[str, Any]:
    """Restores a nested dict of arrays on one device, without a template.

    Raises:
      UserError: The checkpoint is incomplete or cannot be read.
    """
    path = self._directory / str(step) / "default"
    # The devices that saved the checkpoint may not exist on this machine.
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    restore_args = ocp.ArrayRestoreArgs(sharding=sharding)
    with self._read_errors(step):
      checkpointer = ocp.PyTreeCheckpointer()
      metadata = checkpointer.metadata(path).item_metadata
      if metadata is None:
        raise UserError(f"{path.parent}: not a complete checkpoint")
      tree = metadata.tree
      return checkpointer.restore(
        path,
        args=ocp.args.PyTreeRestore(
          item=tree,
          restore_args=jax.tree.map(lambda _: restore_args, tree),
        ),
      )

  def _read_errors(self, step: int):
    return files.disk_errors(
      self._directory / str(step),
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
