"""How well the connected regions of a prediction are the true cells.

The Rand F-score of the electron microscopy challenge of ISBI 2012, restricted
to the foreground (Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142,
Sec. 2.3). Of a pixel of the truth's cells let p_ij be the probability that it
lies in region i of the prediction and cell j of the truth. Then
  split = sum_ij p_ij^2 / sum_j p_j^2,   merge = sum_ij p_ij^2 / sum_i p_i^2,
the probabilities that two pixels of one true cell are not split, and that two
of one region are not merged wrongly; the F-score is their harmonic mean.

A cell is a connected region of any class but 0, the membrane. The challenge
thins predicted membranes to nothing first. Here each pixel of a predicted
membrane is a region of its own, as in the challenges that followed (SNEMI3D,
CREMI): membranes that are too thick cost something, and nothing has to be
thinned. Its pixel error is one less the pixel accuracy; its third score, the
warping error, is not computed.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer
import numpy as np

from jaxseg.regions import connected_regions

# What is above is cell; the challenge, too, takes the best of several.
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def rand_scores(
  truth: Int[Array, "h w"], prediction: Int[Array, "h w"]
) -> dict[str, Float[Array, ""]]:
  """Compares two partitions of the pixels that are not 0 in `truth`.

  Args:
    truth: number of each pixel's cell, at most h w; 0 does not count.
    prediction: number of each pixel's region, at most h w; each 0 is a region
      of its own.

  Returns:
    `rand_f`, `rand_split` and `rand_merge`, 1 for a perfect prediction; NaN
    where the truth has no cell.
  """
  pixels = truth.size
  truth, prediction = truth.ravel(), prediction.ravel()
  alone = pixels + 1 + jnp.arange(pixels)
  prediction = jnp.where(prediction > 0, prediction, alone)
  counted = (truth > 0).astype(jnp.float32)

  order = jnp.lexsort((prediction, truth))
  pair = jnp.stack([truth, prediction])[:, order]
  new = jnp.any(pair[:, 1:] != pair[:, :-1], axis=0)
  number = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(new)])
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
  """Rand F-scores of a batch for each of THRESHOLDS.

  Args:
    label: true classes.
    cell: probability that a pixel is of any class but 0.
    ignore_label: label of pixels that are in no cell, true or predicted.

  Returns:
    The scores, added over the sections that have a cell, and their number.
  """

  def of_section(label, cell):
    valid = label != ignore_label
    truth = connected_regions(label, valid & (label > 0))

    def at(threshold):
      inside = valid & (cell > threshold)
      regions = connected_regions(jnp.zeros_like(label), inside)
      return rand_scores(truth, regions)["rand_f"]

    scores = jax.lax.map(at, jnp.asarray(THRESHOLDS))
    has_cell = jnp.any(truth > 0)
    return jnp.where(has_cell, scores, 0.0), has_cell.astype(jnp.float32)

  scores, counted = jax.vmap(of_section)(label, cell)
  return jnp.sum(scores, axis=0), jnp.sum(counted)


def best(scores: Float[np.ndarray, "t"], sections: float) -> dict[str, float]:
  """Of sums of `rand_f_scores`: the best mean, and at which threshold."""
  index = int(np.argmax(scores))
  return {
    "rand_f": float(scores[index] / sections),
    "rand_threshold": THRESHOLDS[index],
  }


def _sum_of_squares(number, weight, length: int) -> Float[Array, ""]:
  """Of the weights of each number."""
  return jnp.sum(jnp.bincount(number, weight, length=length) ** 2)
