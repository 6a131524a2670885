"""The Rand F-score equals its definition by pairs of pixels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.tasks.rand_score import (
  THRESHOLDS,
  rand_f_scores,
  rand_scores,
)


def scored(truth, prediction):
  """Returns the Rand scores of one row of pixels."""
  return jax.jit(rand_scores)(
    jnp.asarray(truth)[None], jnp.asarray(prediction)[None]
  )


def _rand_by_pairs(truth, prediction):
  """Counts ordered pairs of pixels in cells, (a, a) included."""
  at = np.flatnonzero(truth)
  together = {"truth": 0, "prediction": 0, "both": 0}
  for a, b in itertools.product(at, at):
    one_cell = truth[a] == truth[b]
    one_region = a == b or (
      prediction[a] == prediction[b] and prediction[a] > 0
    )
    together["truth"] += one_cell
    together["prediction"] += one_region
    together["both"] += one_cell and one_region
  return together


def test_rand_scores_count_pairs():
  rng = np.random.default_rng(1)
  for _ in range(5):
    truth, prediction = rng.integers(0, 4, (2, 40))
    pairs = _rand_by_pairs(truth, prediction)
    split = pairs["both"] / pairs["truth"]
    merge = pairs["both"] / pairs["prediction"]
    scores = scored(truth, prediction)
    assert scores["rand_split"] == pytest.approx(split)
    assert scores["rand_merge"] == pytest.approx(merge)
    assert scores["rand_f"] == pytest.approx(2 / (1 / split + 1 / merge))


def test_numbers_of_regions_and_pixels_outside_of_cells_do_not_count():
  truth = np.array([0, 1, 1, 2, 2, 0])
  assert scored(truth, np.array([5, 9, 9, 4, 4, 9]))["rand_f"] == 1
  assert np.isnan(scored(np.zeros(3, int), np.ones(3, int))["rand_f"])


def test_two_equal_cells_merged():
  """Two merged cells of n pixels: merge is (n^2 + n^2) / (2 n)^2 = 1/2."""
  scores = scored(np.repeat([1, 2], 50), np.ones(100, int))
  assert scores["rand_split"] == 1
  assert scores["rand_merge"] == 0.5
  assert scores["rand_f"] == pytest.approx(2 / 3)


def test_the_best_threshold_separates_the_cells():
  truth = np.ones((3, 9, 9), np.int32)
  truth[:, 4] = 0
  probability = np.where(truth, 0.97, 0.65)
  # Ignored pixels are no cell of the truth and join no cells.
  truth[:2, :, 7:] = truth[2] = 255
  scores, sections = jax.jit(
    lambda x, y: rand_f_scores(x, y, ignore_label=255)
  )(jnp.asarray(truth), jnp.asarray(probability))
  assert sections == 2
  merged = 2 / (1 + 1 / 0.5)
  for threshold, score in zip(THRESHOLDS, scores, strict=True):
    expected = 1 if threshold > 0.65 else merged
    np.testing.assert_allclose(score / sections, expected, rtol=1e-6)


def test_cells_of_different_classes_are_different_cells():
  """The prediction has no classes, so cells that touch are one region."""
  truth = jnp.asarray([[[1, 1, 2, 2, 0]]])
  cell = jnp.asarray([[[0.99, 0.99, 0.99, 0.99, 0.0]]])
  scores, _ = rand_f_scores(truth, cell, ignore_label=255)
  np.testing.assert_allclose(scores, 2 / 3, rtol=1e-6)
