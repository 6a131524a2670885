"""Formats scores: for metrics.jsonl, as one line, and as a table."""

from collections.abc import Sequence

import numpy as np

from jaxseg.tasks.task import Scores


def flat(scores: Scores) -> dict[str, float]:
  """Returns the scores that metrics.jsonl has.

  These are the overall scores and `iou/<class>`, as far as they are defined.
  """
  return {
    key: value
    for key, value in scores.items()
    if isinstance(value, float)
    and np.isfinite(value)
    and not key.startswith(("accuracy/", "share/"))
  }


def headline(scores: Scores) -> str:
  """Returns the overall scores in one line."""
  line = (
    f"mIoU {scores['miou']:.4f}, pixel accuracy "
    f"{scores['pixel_accuracy']:.4f}, loss {scores['loss']:.4f}"
  )
  if "rand_f" in scores:
    line += f", Rand F {scores['rand_f']:.4f}"
  return line


def format_table(scores: Scores, class_names: Sequence[str]) -> str:
  """Returns a table of the IoU, accuracy and pixel share of each class.

  Its last lines are the means over classes and over pixels. If some classes
  have no score, a line says how many classes each mean has.

  Args:
    scores: Scores that a task returned.
    class_names: Name of each class.
  """
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
  defined = [
    sum(not np.isnan(scores[f"{key}/{name}"]) for name in class_names)
    for key in ("iou", "accuracy")
  ]
  total = len(class_names)
  counts = []
  if min(defined) < total:
    cells = [f"{count} of {total}" for count in defined]
    counts = [line("number of classes", [*cells, ""])]
  overall = f"mIoU {scores['miou']:.4f}"
  if defined[0] < total:
    overall += f" over {defined[0]} of {total} classes"
  overall += f"   loss {scores['loss']:.4f}"
  if "rand_f" in scores:
    overall += (
      f"   Rand F {scores['rand_f']:.4f} at threshold"
      f" {scores['rand_threshold']}"
    )
  return "\n".join(
    [
      line("class", [f"{head} %" for head in heads]),
      rule,
      *rows,
      rule,
      line("mean over classes", means),
      *counts,
      line("mean over pixels", pixels),
      overall,
    ]
  )


def _percent(value: float) -> str:
  """Formats a share as a percentage, and NaN as "-"."""
  return "-" if np.isnan(value) else f"{100 * value:.2f}"
