"""Writes metrics.jsonl, TensorBoard events and pictures of a training run.

Only the first process writes.
"""

from collections.abc import Sequence

from etils import epath
import numpy as np

from jaxseg.data import Dataset
from jaxseg.evaluation import pictures
from jaxseg.runs.metrics_log import MetricsLog, tensorboard_writer


def picture_path(workdir: epath.Path, step: int) -> epath.Path:
  """Returns the path of the picture of a step."""
  return workdir / "pictures" / f"step_{step:06d}.png"


class Reports:
  """Writes scalars and pictures into a work directory."""

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
      dataset: Data set with the names and colours of the classes.
      workdir: The work directory.
      resume_step: Step that training continues from. Later lines of the log
        are deleted.
      enabled: Whether this process writes.
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
    """Writes values as a line of metrics.jsonl and to TensorBoard.

    Args:
      step: Number of training steps taken.
      split: Split that the values belong to, or "train".
      values: Value of each metric.
    """
    if not self._enabled:
      return
    self._log.write(step, split, values)
    for key, value in values.items():
      self._writer.add_scalar(f"{split}/{key}", value, step)

  def picture(
    self,
    step: int,
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
  ) -> None:
    """Writes a picture with a row of image, truth and prediction per example.

    Args:
      step: Number of training steps taken.
      images: The images.
      labels: Class id, or ignore label, of each pixel.
      predictions: Predicted class id of each pixel.
    """
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
    pictures.save(picture_path(self._workdir, step), grid)
    self._writer.add_image(
      "image | truth | prediction", np.asarray(grid), step, dataformats="HWC"
    )

  def close(self) -> None:
    """Closes the TensorBoard writer and writes its remaining events."""
    if self._enabled:
      self._writer.close()
