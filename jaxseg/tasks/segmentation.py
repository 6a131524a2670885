"""Segmentation: every pixel has a class.

The loss is the cross-entropy of the valid pixels. Evaluation adds up one
confusion matrix over the whole split and computes all scores from it.
"""

from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import augment, losses, metrics
from jaxseg.tasks import rand_score, tables
from jaxseg.tasks.task import Batch, Scores
from jaxseg.types import Outputs


@dataclasses.dataclass(frozen=True)
class Segmentation:
  """Segmentation of images into classes.

  Attributes:
    class_names: Name of each class, in the order of the class ids.
    mean: RGB mean in 0..1 that is subtracted from every image.
    std: RGB standard deviation in 0..1 by which every image is divided.
    ignore_label: Id of pixels that count nowhere.
    augmentation: Random augmentation of training images and labels.
    heads_loss: Loss of the network's outputs.
    absent: Key of `metrics.ABSENT`, the IoU of a class that occurs in neither
      truth nor prediction.
    rand: Whether to compute the Rand F-score of connected regions as well.
    metric: Score that selects the best checkpoint.
  """

  class_names: tuple[str, ...]
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  ignore_label: int = 255
  augmentation: augment.Augmentation = augment.Augmentation()
  heads_loss: losses.HeadsLoss = losses.HeadsLoss()
  absent: str = "skip"
  rand: bool = False

  metric: ClassVar[str] = "miou"

  @property
  def num_classes(self) -> int:
    """Number of classes."""
    return len(self.class_names)

  def target(self, label: jax.Array) -> jax.Array:
    """Returns the target of the loss, given labels `[n, h, w]`."""
    return label

  def normalise(self, image: jax.Array) -> jax.Array:
    """Returns images, uint8 or float32 in 0..1, less `mean`, over `std`."""
    return augment.normalise(image, self.mean, self.std)

  def inputs(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Augments a training batch.

    Args:
      batch: `image` uint8 `[n, h, w, 3]`, `label` `[n, h, w]`, `size` int32
        `[n, 2]` and `index` int32 `[n]`; `jaxseg.data.dataset` describes them.
      key: Random key of each example, `[n]`.

    Returns:
      Normalised crops of the images, float32 `[n, crop_h, crop_w, 3]`, and
      their targets.
    """
    image, label = augment.augment(
      key,
      batch["image"],
      batch["label"],
      batch["size"],
      settings=self.augmentation,
      mean=self.mean,
      ignore_label=self.ignore_label,
    )
    return self.normalise(image), self.target(label)

  def loss(
    self, outputs: Outputs, target: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the loss of the network's outputs as (sum, weight)."""
    return self.heads_loss(outputs, target, ignore_label=self.ignore_label)

  def counts(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Counts the outcomes of one batch.

    The counts of several batches can be added.

    Args:
      logits: Logits of the batch, float32 `[n, h, w, k]`.
      batch: The batch. Examples that pad the last batch of a split have the
        ignore label everywhere.

    Returns:
      `confusion`, the int32 confusion matrix `[k, k]`; `loss_sum` and
      `loss_weight`, the sum of the negative log-likelihood and the number of
      valid pixels; and if `rand` is set, `rand_f` `[t]` and `sections` of
      `rand_score.rand_f_scores`. The negative log-likelihood has no class
      weights, label smoothing or auxiliary heads, so that runs trained with
      different losses can be compared.
    """
    label = self.target(batch["label"])
    loss_sum, loss_weight = losses.softmax_cross_entropy(
      logits, label, ignore_label=self.ignore_label
    )
    counts = {
      "confusion": metrics.confusion_matrix(
        label,
        jnp.argmax(logits, axis=-1),
        num_classes=self.num_classes,
        ignore_label=self.ignore_label,
      ),
      "loss_sum": loss_sum,
      "loss_weight": loss_weight,
    }
    if self.rand:
      counts["rand_f"], counts["sections"] = rand_score.rand_f_scores(
        label,
        1 - jax.nn.softmax(logits)[..., 0],
        ignore_label=self.ignore_label,
      )
    return counts

  def scores(self, counts: Mapping[str, np.ndarray]) -> Scores:
    """Computes scores from the counts of a whole split.

    Args:
      counts: Sums of the counts of all batches; empty for an empty split.

    Returns:
      `loss`, `miou`, `pixel_accuracy`, `mean_accuracy`, `mean_dice` and
      `frequency_weighted_iou`; `iou/<class>`, `accuracy/<class>` and
      `share/<class>` (share of the true pixels) of each class; and the int64
      `confusion` matrix `[k, k]`. If `rand` is set, also `rand_f`, the mean
      over the sections at the best threshold, and this `rand_threshold`.
      Undefined scores are NaN.
    """
    empty = np.zeros((self.num_classes, self.num_classes), np.int64)
    confusion = counts.get("confusion", empty)
    weight = float(counts.get("loss_weight", 0.0))
    overall = metrics.scores(confusion, absent=self.absent)
    per_class = {
      "iou": overall.pop("iou"),
      "accuracy": overall.pop("accuracy"),
      "share": confusion.sum(axis=1) / max(confusion.sum(), 1),
    }
    del overall["dice"]
    if counts.get("sections"):
      overall |= rand_score.best(counts["rand_f"], float(counts["sections"]))
    return {
      "loss": float(counts["loss_sum"]) / weight if weight else float("nan"),
      **overall,
      **{
        f"{score}/{name}": float(value)
        for score, values in per_class.items()
        for name, value in zip(self.class_names, values, strict=True)
      },
      "confusion": confusion,
    }

  def headline(self, scores: Scores) -> str:
    """Returns mIoU, pixel accuracy and loss as one line."""
    return tables.headline(scores)

  def table(self, scores: Scores) -> str:
    """Returns the scores as a table with one line a class."""
    return tables.format_table(scores, self.class_names)
