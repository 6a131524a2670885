"""Segmentation scores, all computed from one confusion matrix.

The matrix is counted exactly, as int32 per batch on the device and as int64
over the data set on the host; ratios are computed once, at the end. Some
toolkits average scores per image or per batch, which gives a different and
noisier number.

The mean IoU depends on how a class that occurs nowhere is scored. Toolkits
differ; `ABSENT` names their conventions.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int, Integer
import numpy as np

from jaxseg.errors import unknown_name

# Conventions for the score of a class in neither truth nor prediction (0 / 0).
# A class that is predicted but nowhere true scores 0 under all of them.
ABSENT = {
  "skip": "left out of the mean (mmsegmentation, VOC and Cityscapes scripts)",
  "zero": "counts 0 (scenic; a matrix smoothed by an epsilon)",
  "one": "counts 1 (segmentation_models.pytorch's zero_division default)",
  "nan": "makes the mean NaN (torchvision's reference scripts)",
}


def confusion_matrix(
  label: Integer[Array, "*pixels"],
  prediction: Integer[Array, "*pixels"],
  *,
  num_classes: int,
  ignore_label: int,
) -> Int[Array, "{num_classes} {num_classes}"]:
  """Counts pixels by (true class, predicted class); rows are the truth.

  Pixels with the ignore label are not counted. Counts are exact up to 2^31 - 1
  pixels in each cell.
  """
  valid = label != ignore_label
  row = jnp.where(valid, label, 0).astype(jnp.int32)
  cell = row * num_classes + prediction.astype(jnp.int32)
  counts = jnp.zeros(num_classes**2, jnp.int32)
  counts = counts.at[cell].add(valid.astype(jnp.int32), mode="drop")
  return counts.reshape(num_classes, num_classes)


def scores(
  confusion: Integer[np.ndarray, "k k"], *, absent: str = "skip"
) -> dict[str, float | np.ndarray]:
  """Computes the scores of a confusion matrix (rows truth, columns prediction).

  For a class with t true, p predicted and c correct pixels,

    IoU = c / (t + p - c), accuracy = c / t, Dice = 2 c / (t + p),

  as in Long et al. 2015 (arXiv:1411.4038, Sec. 5).

  Args:
    confusion: Counts of pixels; int64 for a data set.
    absent: Key of `ABSENT`, the convention for IoU and Dice of a class in
      neither truth nor prediction. Classes without a true pixel have no
      accuracy; the mean accuracy always omits them.

  Returns:
    Floats `miou`, `pixel_accuracy`, `mean_accuracy`, `mean_dice` and
    `frequency_weighted_iou`, and arrays `iou`, `accuracy` and `dice` with one
    value for each class, NaN if undefined. Without any counted pixel the floats
    are NaN.

  Raises:
    UserError: `absent` is unknown.
  """
  if absent not in ABSENT:
    raise unknown_name("eval.absent", absent, ABSENT)
  confusion = np.asarray(confusion).astype(np.float64)
  true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
  correct, total = np.diag(confusion), confusion.sum()
  fill = {"skip": np.nan, "zero": 0.0, "one": 1.0, "nan": np.nan}[absent]
  iou = _ratio(correct, true + predicted - correct, fill)
  dice = _ratio(2 * correct, true + predicted, fill)
  accuracy = _ratio(correct, true, np.nan)
  mean = np.mean if absent == "nan" else _mean_of_defined
  return {
    "miou": float(mean(iou)) if total else np.nan,
    "pixel_accuracy": float(correct.sum() / total) if total else np.nan,
    "mean_accuracy": _mean_of_defined(accuracy),
    "frequency_weighted_iou": (
      float(np.sum(true * np.nan_to_num(iou)) / total) if total else np.nan
    ),
    "mean_dice": float(mean(dice)) if total else np.nan,
    "iou": iou,
    "accuracy": accuracy,
    "dice": dice,
  }


def _ratio(over, under, fill: float) -> np.ndarray:
  out = np.full(under.shape, fill)
  np.divide(over, under, out=out, where=under > 0)
  return out


def _mean_of_defined(values: np.ndarray) -> float:
  defined = values[~np.isnan(values)]
  return float(defined.mean()) if defined.size else float("nan")
