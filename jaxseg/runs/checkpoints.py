"""Checkpoints: orbax's CheckpointManager with jaxseg's rules.

- Saved asynchronously and atomically: a killed save leaves the one before.
- The last N and the best by validation mIoU are kept.
- Restored onto the shardings of today's mesh, whatever devices wrote them.
"""

from collections.abc import Iterator
import contextlib
from pathlib import Path
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxseg.errors import UserError

BEST_METRIC = "miou"


class Checkpoints:
  """Saves and restores train states under `workdir/checkpoints`."""

  def __init__(self, workdir: Path, *, keep_last: int = 1):
    self._directory = Path(workdir).absolute() / "checkpoints"
    keep = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep_last),
        checkpoint_managers.BestN(
          get_metric_fn=lambda metrics: metrics[BEST_METRIC],
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
      ]
    )
    with _explained(self._directory):
      self._manager = ocp.CheckpointManager(
        self._directory,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=keep,
          best_fn=lambda metrics: metrics[BEST_METRIC],
          enable_async_checkpointing=True,
        ),
      )

  def save(self, state: Any, metrics: dict[str, float] | None = None) -> None:
    """Starts saving; returns once the arrays are copied off the device.

    Args:
      state: saved under its own step; a step already saved is left alone.
      metrics: of this state's evaluation, with `miou`, if there was one.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self._check_space(state)
    with _explained(self._directory):
      self._manager.save(
        step,
        args=ocp.args.StandardSave(state),
        metrics=metrics and {BEST_METRIC: metrics[BEST_METRIC]},
      )

  def _check_space(self, state: Any) -> None:
    """Refuses to begin what the disk cannot hold."""
    self.wait()
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20
    free = shutil.disk_usage(self._directory).free
    if free < needed:
      raise UserError(
        f"{self._directory}: no space left for a checkpoint "
        f"({needed / 2**20:.1f} MB needed, {free / 2**20:.1f} MB free); "
        "earlier checkpoints are intact; free some space and run the same "
        "command"
      )

  def wait(self) -> None:
    """Returns when everything is on disk."""
    with _explained(self._directory):
      self._manager.wait_until_finished()
      self._manager.check_for_errors()

  def close(self) -> None:
    """Waits and releases the manager's threads."""
    self.wait()
    self._manager.close()

  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint."""
    return self._manager.latest_step()

  def best_step(self) -> int | None:
    """Step of the checkpoint with the best validation mIoU."""
    return self._manager.best_step()

  def restore(self, like: Any, step: int | None = None) -> Any:
    """Restores onto the shapes and shardings of `like` (arrays or structs)."""
    step = self.latest_step() if step is None else step
    with _explained(self._directory):
      return self._manager.restore(step, args=ocp.args.StandardRestore(like))

  def restore_as_saved(self, step: int) -> dict[str, Any]:
    """Restores a nested dict of arrays on one device, without a template."""
    path = self._directory / str(step) / "default"
    # Onto this device, whatever devices, of whatever machines, saved it.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with _explained(self._directory):
      checkpointer = ocp.PyTreeCheckpointer()
      tree = checkpointer.metadata(path).item_metadata.tree
      onto = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=here), tree)
      return checkpointer.restore(
        path, args=ocp.args.PyTreeRestore(item=tree, restore_args=onto)
      )

  def steps(self) -> list[int]:
    """Steps of all complete checkpoints."""
    return sorted(self._manager.all_steps())


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
  """Turns a failing disk into one line that names the directory."""
  try:
    yield
  except Exception as error:
    text = str(error)
    causes = (
      "No space left",
      "RESOURCE_EXHAUSTED",
      "Permission denied",
      "Disk quota",
      "Read-only file system",
      "File too large",
    )
    if isinstance(error, OSError) or any(cause in text for cause in causes):
      line = text.strip().splitlines()[0][:200]
      raise UserError(
        f"{directory}: cannot write a checkpoint ({line}); earlier "
        "checkpoints are intact; free some space and run the same command"
      ) from error
    raise
