"""What a run reports: metrics.jsonl, TensorBoard events and pictures.

Only the first process writes.
"""

from etils import epath
import numpy as np

from jaxseg.data import Dataset
from jaxseg.evaluation import pictures
from jaxseg.runs.metrics_log import MetricsLog, tensorboard_writer


class Reports:
  """Writes scalars and pictures of a run into its work directory."""

  def __init__(
    self,
    dataset: Dataset,
    workdir: epath.Path,
    *,
    resume_step: int,
    enabled: bool,
  ):
    """Opens the log and the TensorBoard writer.

    Args:
      dataset: Names and colours its classes.
      workdir: The work directory.
      resume_step: The step that training continues from; later lines of the
        log are dropped.
      enabled: Whether this process writes at all.
    """
    self._dataset = dataset
    self._workdir = workdir
    self._enabled = enabled
    self._log = MetricsLog(workdir, resume_step=resume_step, enabled=enabled)
    self._writer = None
    if not enabled:
      return
    self._writer = tensorboard_writer(workdir, resume_step=resume_step)

  def scalars(self, step: int, split: str, values: dict[str, float]) -> None:
    """Writes one line of metrics.jsonl, and the same to TensorBoard."""
    if not self._enabled:
      return
    self._log.write(step, split, values)
    for key, value in values.items():
      self._writer.add_scalar(f"{split}/{key}", value, step)

  def picture_path(self, step: int) -> epath.Path:
    """Returns the path of the picture of a step."""
    return self._workdir / "pictures" / f"step_{step:06d}.png"

  def picture(
    self,
    step: int,
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
  ) -> None:
    """Writes a picture of image, truth and prediction, one row an example."""
    if not self._enabled:
      return
    grid = pictures.comparison(
      images,
      labels,
      predictions,
      palette=self._dataset.palette,
      class_names=self._dataset.class_names,
      ignore_label=self._dataset.ignore_label,
    )
    pictures.save(self.picture_path(step), grid)
    self._writer.add_image(
      "image | truth | prediction", np.asarray(grid), step, dataformats="HWC"
    )

  def close(self) -> None:
    """Flushes TensorBoard."""
    if self._enabled:
      self._writer.close()
