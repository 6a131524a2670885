"""Scores of the electron microscopy challenge of ISBI 2012.

Arganda-Carreras et al. 2015 (doi:10.3389/fnana.2015.00142), Sec. 2.3:

- pixel error: the share of pixels whose class is wrong;
- Rand F-score, restricted to the foreground: how well the connected regions
  of the prediction are the true cells. Of a pixel of the truth's cells let
  p_ij be the probability that it lies in region i of the prediction and cell j
  of the truth. Then
    split = sum_ij p_ij^2 / sum_j p_j^2,   merge = sum_ij p_ij^2 / sum_i p_i^2,
  the probabilities that two pixels of one true cell are not split, and that
  two of one region are not merged wrongly; the F-score is their harmonic mean.

The challenge thins predicted membranes to nothing first. Here each pixel of a
predicted membrane is a region of its own, as in the challenges that followed
(SNEMI3D, CREMI): membranes that are too thick cost something, and nothing has
to be thinned. Its third score, the warping error, is not computed.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer
import numpy as np

from jaxseg.regions import connected_regions


def pixel_error(
  truth: Bool[np.ndarray, "*pixels"], prediction: Bool[np.ndarray, "*pixels"]
) -> float:
  """The share of pixels on which two masks disagree."""
  return float(np.mean(truth != prediction))


def rand_scores(
  truth: Integer[np.ndarray, "*pixels"],
  prediction: Integer[np.ndarray, "*pixels"],
) -> dict[str, float]:
  """Compares two partitions of the pixels that are not 0 in `truth`.

  Args:
    truth: number of each pixel's cell; 0 does not count.
    prediction: number of each pixel's region; each 0 is a region of its own.

  Returns:
    `rand_f`, `rand_split` and `rand_merge`, 1 for a perfect prediction; NaN
    where the truth has no cell.
  """
  counted = truth > 0
  truth, prediction = truth[counted], prediction[counted]
  if not truth.size:
    return dict.fromkeys(("rand_f", "rand_split", "rand_merge"), float("nan"))
  alone = prediction == 0
  prediction = prediction.astype(np.int64)
  prediction[alone] = prediction.max() + 1 + np.arange(alone.sum())
  pairs = np.stack([prediction, truth.astype(np.int64)])
  both, of_prediction, of_truth = (
    float(
      np.sum(np.unique(a, axis=-1, return_counts=True)[1].astype(float) ** 2)
    )
    for a in (pairs, prediction, truth)
  )
  return {
    "rand_f": 2 * both / (of_prediction + of_truth),
    "rand_split": both / of_truth,
    "rand_merge": both / of_prediction,
  }


def challenge_scores(
  truth: Bool[np.ndarray, "n h w"],
  probability: Float[np.ndarray, "n h w"],
  thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
) -> dict[str, float]:
  """Scores of a stack, its regions cut at the best of several thresholds.

  Args:
    truth: where the cells are.
    probability: of cell, for each pixel.
    thresholds: what is above is cell; the Rand F-score, averaged over the
      sections, is the best of these, as in the challenge.

  Returns:
    `pixel_error` at a threshold of one half, `rand_f`, and `threshold`.
  """
  cells = _regions(truth)
  best, threshold = max(
    (
      float(
        np.mean(
          [
            rand_scores(c, p)["rand_f"]
            for c, p in zip(cells, _regions(probability > t), strict=True)
          ]
        )
      ),
      t,
    )
    for t in thresholds
  )
  return {
    "pixel_error": pixel_error(truth, probability > 0.5),
    "rand_f": best,
    "threshold": threshold,
  }


@jax.jit
def _numbered(masks: jax.Array) -> jax.Array:
  return jax.vmap(connected_regions)(masks.astype(jnp.int32), masks)


def _regions(masks: Bool[np.ndarray, "n h w"]) -> np.ndarray:
  return np.asarray(_numbered(jnp.asarray(masks)))
