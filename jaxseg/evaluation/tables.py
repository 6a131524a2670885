"""Scores as text: the line of a log, the line of a bar, and the table."""

from collections.abc import Sequence

import numpy as np

from jaxseg.tasks.segmentation import Scores


def flat(scores: Scores) -> dict[str, float]:
  """The numbers of metrics.jsonl: overall and `iou/<class>`, if defined."""
  return {
    key: value
    for key, value in scores.items()
    if isinstance(value, float)
    and np.isfinite(value)
    and not key.startswith(("accuracy/", "share/"))
  }


def headline(scores: Scores) -> str:
  """The one line that a progress bar has room for."""
  line = (
    f"mIoU {scores['miou']:.4f}, pixel accuracy "
    f"{scores['pixel_accuracy']:.4f}, loss {scores['loss']:.4f}"
  )
  if "rand_f" in scores:
    line += f", Rand F {scores['rand_f']:.4f}"
  return line


def format_table(scores: Scores, class_names: Sequence[str]) -> str:
  """IoU, accuracy and share of the true pixels, a line a class."""
  width = max(len(name) for name in (*class_names, "mean over classes"))
  keys = ("iou", "accuracy", "share")
  heads = ("IoU", "accuracy", "share")

  def line(name, cells):
    text = f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in cells)
    return text.rstrip()

  rule = "-" * (width + 12 * len(keys))
  rows = [
    line(name, [_percent(scores[f"{key}/{name}"]) for key in keys])
    for name in class_names
  ]
  means = [_percent(scores["miou"]), _percent(scores["mean_accuracy"]), ""]
  pixels = [
    _percent(scores["frequency_weighted_iou"]),
    _percent(scores["pixel_accuracy"]),
    "",
  ]
  overall = f"mIoU {scores['miou']:.4f}   loss {scores['loss']:.4f}"
  if "rand_f" in scores:
    overall += (
      f"   Rand F {scores['rand_f']:.4f}, cut at {scores['rand_threshold']}"
    )
  return "\n".join(
    [
      line("class", [f"{head} %" for head in heads]),
      rule,
      *rows,
      rule,
      line("mean over classes", means),
      line("mean over pixels", pixels),
      overall,
    ]
  )


def _percent(value: float) -> str:
  return "-" if np.isnan(value) else f"{100 * value:.2f}"
