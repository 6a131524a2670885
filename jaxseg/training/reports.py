"""What a run tells: metrics.jsonl, TensorBoard, pictures; one process only."""

from pathlib import Path

from ml_collections import ConfigDict
import numpy as np

from jaxseg.evaluation import pictures
from jaxseg.runs.metrics_log import MetricsLog


class Reports:
  """Writes scalars and pictures of a run into its work directory."""

  def __init__(
    self, config: ConfigDict, workdir: Path, *, resume_step: int, enabled: bool
  ):
    self._config = config
    self._workdir = workdir
    self._enabled = enabled
    self._log = MetricsLog(workdir, resume_step=resume_step, enabled=enabled)
    self._writer = None
    if not enabled:
      return
    # Imported here: it loads torch where there is one.
    from tensorboardX import SummaryWriter

    # Events after the resumed step are written again: TensorBoard drops them.
    self._writer = SummaryWriter(str(workdir), purge_step=resume_step + 1)

  def scalars(self, step: int, split: str, values: dict[str, float]) -> None:
    """One line of metrics.jsonl, and the same to TensorBoard."""
    if not self._enabled:
      return
    self._log.write(step, split, values)
    for key, value in values.items():
      self._writer.add_scalar(f"{split}/{key}", value, step)

  def picture_path(self, step: int) -> Path:
    """Where the picture of `step` lies."""
    return self._workdir / "pictures" / f"step_{step:06d}.png"

  def picture(
    self,
    step: int,
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
  ) -> None:
    """Image | truth | prediction, one row an example."""
    if not self._enabled:
      return
    data = self._config.data
    grid = pictures.comparison(
      images,
      labels,
      predictions,
      palette=data.palette,
      class_names=data.class_names,
      ignore_label=data.ignore_label,
    )
    pictures.save(self.picture_path(step), grid)
    self._writer.add_image(
      "image | truth | prediction", np.asarray(grid), step, dataformats="HWC"
    )

  def close(self) -> None:
    """Flushes TensorBoard."""
    if self._enabled:
      self._writer.close()
