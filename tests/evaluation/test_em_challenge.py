"""Scores of the membrane challenge against their definitions."""

import itertools

import numpy as np
import pytest

from jaxseg.evaluation.em_challenge import (
  challenge_scores,
  pixel_error,
  rand_scores,
)


def _rand_by_pairs(truth, prediction):
  """Of all ordered pairs of counted pixels, each pixel with itself too."""
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
    scores = rand_scores(truth, prediction)
    assert scores["rand_split"] == pytest.approx(split)
    assert scores["rand_merge"] == pytest.approx(merge)
    assert scores["rand_f"] == pytest.approx(2 / (1 / split + 1 / merge))


def test_rand_score_ignores_numbers_and_what_lies_outside_the_truth():
  truth = np.array([0, 1, 1, 2, 2, 0])
  assert rand_scores(truth, np.array([5, 9, 9, 4, 4, 9]))["rand_f"] == 1
  assert np.isnan(rand_scores(np.zeros(3, int), np.ones(3, int))["rand_f"])


def test_one_merger_of_two_equal_cells():
  """Two cells of n pixels as one: merge (n^2 + n^2) / (2 n)^2 = 1/2."""
  scores = rand_scores(np.repeat([1, 2], 50), np.ones(100, int))
  assert scores["rand_split"] == 1
  assert scores["rand_merge"] == 0.5
  assert scores["rand_f"] == pytest.approx(2 / 3)


def test_the_best_threshold_separates_the_cells():
  truth = np.ones((2, 9, 9), bool)
  truth[:, 4] = False
  probability = np.where(truth, 0.95, 0.65)
  scores = challenge_scores(truth, probability)
  assert scores["rand_f"] == 1
  assert scores["threshold"] >= 0.7
  assert scores["pixel_error"] == pytest.approx(1 / 9)
  assert pixel_error(truth, truth) == 0
