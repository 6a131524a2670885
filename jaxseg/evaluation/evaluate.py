"""Scores of a network on a split: one confusion matrix, counted exactly.

The same function scores during training and afterwards, so the two agree. The
matrix is int32 per batch on the devices, summed over all of them by `jit`,
and int64 over the split on the host; padding examples carry the ignore id and
count nowhere, so any split size and any batch size give the same numbers.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
from tqdm import tqdm

from jaxseg import losses, metrics, sharding
from jaxseg.evaluation import inference, rand_score
from jaxseg.image_label import largest_class

Scores = dict[str, Any]


def make_eval_step(
  model: nn.Module,
  config: ConfigDict,
  mesh: jax.sharding.Mesh | None = None,
) -> Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]:
  """Compiles the evaluation of one batch as `config.eval` says.

  Args:
    model: the network.
    config: a resolved configuration.
    mesh: over which batches are split; None for one device.

  Returns:
    A function of (variables, batch) to `confusion` int32 [k, k], and
    `loss_sum`, `loss_weight`: the negative log-likelihood over valid pixels,
    without class weights, smoothing or auxiliary heads, so that runs which
    train with different losses can be compared. With `eval.rand` also
    `rand_f` [t] and `sections`, see `rand_score.rand_f_scores`.
  """
  predict_logits = inference.make_predict_logits(model, config, mesh)
  num_classes = len(config.data.class_names)
  ignore_label = config.data.ignore_label

  def eval_step(variables, batch):
    logits = predict_logits(variables, batch["image"])
    label = batch["label"]
    if config.task == "classification":
      label = largest_class(
        label, num_classes=num_classes, ignore_label=ignore_label
      )
    loss_sum, loss_weight = losses.softmax_cross_entropy(
      logits, label, ignore_label=ignore_label
    )
    confusion = metrics.confusion_matrix(
      label,
      jnp.argmax(logits, axis=-1),
      num_classes=num_classes,
      ignore_label=ignore_label,
    )
    counts = {
      "confusion": confusion,
      "loss_sum": loss_sum,
      "loss_weight": loss_weight,
    }
    if config.eval.rand:
      counts["rand_f"], counts["sections"] = rand_score.rand_f_scores(
        label,
        1 - jax.nn.softmax(logits)[..., 0],
        ignore_label=ignore_label,
      )
    return counts

  whole = None if mesh is None else sharding.replicated(mesh)
  return jax.jit(eval_step, out_shardings=whole)


def evaluate(
  eval_step: Callable[..., dict[str, jax.Array]],
  variables: Any,
  batches: Iterable[dict[str, Any]],
  *,
  class_names: Sequence[str],
  absent: str = "skip",
  to_device: Callable[[Any], Any] | None = None,
  total: int | None = None,
  progress: bool = True,
) -> Scores:
  """Scores all batches.

  Args:
    eval_step: from `make_eval_step`.
    variables: of the network.
    batches: of a whole split.
    class_names: name the classes in the result.
    absent: key of `metrics.ABSENT`.
    to_device: puts a host batch on the devices, if it is not there yet.
    total: number of batches, for the progress bar.
    progress: show a progress bar.

  Returns:
    `loss`, `miou`, `pixel_accuracy`, `mean_accuracy`, `mean_dice` and
    `frequency_weighted_iou`; `iou/<class>`, `accuracy/<class>` and
    `share/<class>` (of the true pixels) for each class; NaN where undefined.
    And the int64 `confusion` matrix [k, k]. With `eval.rand` the best
    `rand_f`, averaged over the sections, and its `rand_threshold`.
  """
  classes = len(class_names)
  sums = {
    "confusion": np.zeros((classes, classes), np.int64),
    "loss_sum": 0.0,
    "loss_weight": 0.0,
  }
  bar = tqdm(
    batches,
    desc="evaluate",
    unit="batch",
    total=total,
    # None: only where a person is looking.
    disable=None if progress and jax.process_index() == 0 else True,
    leave=False,
    dynamic_ncols=True,
  )
  for counts in _one_behind(eval_step, variables, bar, to_device):
    for key, count in counts.items():
      # In 64 bits from here on.
      exact = np.int64 if key == "confusion" else np.float64
      sums[key] = sums.get(key, 0.0) + np.asarray(count, exact)
  confusion, loss_weight = sums["confusion"], float(sums["loss_weight"])
  scores = metrics.scores(confusion, absent=absent)
  share = confusion.sum(axis=1) / max(confusion.sum(), 1)
  per_class = {
    "iou": scores.pop("iou"),
    "accuracy": scores.pop("accuracy"),
    "share": share,
  }
  scores.pop("dice")
  if sums.get("sections"):
    scores |= rand_score.best(sums["rand_f"], float(sums["sections"]))
  return {
    "loss": (
      float(sums["loss_sum"]) / loss_weight if loss_weight else float("nan")
    ),
    **scores,
    **{
      f"{key}/{name}": float(value)
      for key, values in per_class.items()
      for name, value in zip(class_names, values, strict=True)
    },
    "confusion": confusion,
  }


def _one_behind(eval_step, variables, batches, to_device):
  """Results, each read only after the next step was dispatched."""
  unread = None
  for batch in batches:
    batch = batch if to_device is None else to_device(batch)
    result = eval_step(variables, batch)
    if unread is not None:
      yield unread
    unread = result
  if unread is not None:
    yield unread


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
