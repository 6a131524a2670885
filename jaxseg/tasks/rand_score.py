"""Rand F-score: agreement of the predicted regions with the true cells.

This is the foreground-restricted Rand score of the ISBI 2012 challenge in
electron microscopy (Arganda-Carreras et al. 2015,
doi:10.3389/fnana.2015.00142, Sec. 2.3). Let p_ij be the probability that a
pixel of the true cells lies in region i of the prediction and in cell j of the
truth. Then

  split = sum_ij p_ij^2 / sum_j p_j^2,   merge = sum_ij p_ij^2 / sum_i p_i^2.

`split` is the probability that two pixels of the same true cell lie in the same
region, and `merge` that two pixels of the same region lie in the same true
cell. The F-score is their harmonic mean.

A cell is a connected region of any class but 0, the membrane. The challenge
thins predicted membranes to zero width before it scores them. Here each pixel
of a predicted membrane is a region of its own, as in the later challenges
SNEMI3D and CREMI: no thinning is needed, and membranes that are too thick lower
the score. The pixel error of the challenge is one minus the pixel accuracy. Its
third score, the warping error, is not implemented.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer
import numpy as np

from jaxseg.regions import connected_regions

# Pixels whose cell probability exceeds a threshold are cells. The best of these
# thresholds is reported, as in the challenge.
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def rand_scores(
  truth: Int[Array, "h w"], prediction: Int[Array, "h w"]
) -> dict[str, Float[Array, ""]]:
  """Compares two partitions of the pixels that are not 0 in `truth`.

  Args:
    truth: Number of the true cell of each pixel, at most h w. Pixels with 0 do
      not count.
    prediction: Number of the predicted region of each pixel, at most h w. Each
      pixel with 0 is a region of its own.

  Returns:
    `rand_f`, `rand_split` and `rand_merge`. They are 1 for a perfect
    prediction, and NaN if the truth has no cell.
  """
  pixels = truth.size
  truth, prediction = truth.ravel(), prediction.ravel()
  own_regions = pixels + 1 + jnp.arange(pixels)
  prediction = jnp.where(prediction > 0, prediction, own_regions)
  counted = (truth > 0).astype(jnp.float32)

  order = jnp.lexsort((prediction, truth))
  pair = jnp.stack([truth, prediction])[:, order]
  is_new = jnp.any(pair[:, 1:] != pair[:, :-1], axis=0)
  number = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(is_new)])
  both = _sum_of_squares(number, counted[order], pixels)
  of_truth = _sum_of_squares(truth, counted, pixels + 1)
  of_prediction = _sum_of_squares(prediction, counted, 2 * pixels + 1)
  return {
    "rand_f": 2 * both / (of_prediction + of_truth),
    "rand_split": both / of_truth,
    "rand_merge": both / of_prediction,
  }


def rand_f_scores(
  label: Integer[Array, "n h w"],
  cell: Float[Array, "n h w"],
  *,
  ignore_label: int,
) -> tuple[Float[Array, "t"], Float[Array, ""]]:
  """Returns Rand F-scores of a batch for each of `THRESHOLDS`.

  Args:
    label: True class of each pixel.
    cell: Probability that a pixel has any class but 0.
    ignore_label: Label of pixels that belong to no true or predicted cell.

  Returns:
    The sums of the scores over the sections that have a cell, and the number of
    these sections.
  """

  def section_scores(label, cell):
    valid = label != ignore_label
    truth = connected_regions(label, valid & (label > 0))

    def score(threshold):
      inside = valid & (cell > threshold)
      regions = connected_regions(jnp.zeros_like(label), inside)
      return rand_scores(truth, regions)["rand_f"]

    scores = jax.lax.map(score, jnp.asarray(THRESHOLDS))
    has_cell = jnp.any(truth > 0)
    return jnp.where(has_cell, scores, 0.0), has_cell.astype(jnp.float32)

  scores, counted = jax.vmap(section_scores)(label, cell)
  return jnp.sum(scores, axis=0), jnp.sum(counted)


def best(scores: Float[np.ndarray, "t"], sections: float) -> dict[str, float]:
  """Returns the best mean score and its threshold.

  Args:
    scores: Sums of scores that `rand_f_scores` returned.
    sections: Number of sections in these sums.
  """
  index = int(np.argmax(scores))
  return {
    "rand_f": float(scores[index] / sections),
    "rand_threshold": THRESHOLDS[index],
  }


def _sum_of_squares(number, weight, length: int) -> Float[Array, ""]:
  """Returns the sum over all numbers of the squared sum of their weights."""
  return jnp.sum(jnp.bincount(number, weight, length=length) ** 2)
