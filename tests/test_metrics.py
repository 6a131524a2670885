"""Scores against sets of pixels, and the conventions for absent classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import UserError
from jaxseg.metrics import ABSENT, confusion_matrix, scores

IGNORE = 255


def example(seed=0, classes=4, shape=(3, 9, 8), ignored=0.2):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, classes, shape).astype(np.uint8)
  label[rng.random(shape) < ignored] = IGNORE
  return label, rng.integers(0, classes, shape).astype(np.int32)


def confusion(label, prediction, classes, ignore=IGNORE):
  return jax.jit(
    lambda a, b: confusion_matrix(
      a, b, num_classes=classes, ignore_label=ignore
    )
  )(label, prediction)


@pytest.mark.parametrize("classes", [1, 2, 4, 19, 150])
def test_confusion_counts_every_pixel(classes):
  label, prediction = example(classes=classes)
  expected = np.zeros((classes, classes), np.int64)
  for t, p in zip(label.ravel(), prediction.ravel(), strict=True):
    if t != IGNORE:
      expected[t, p] += 1
  counted = confusion(label, prediction, classes)
  assert counted.dtype == jnp.int32
  np.testing.assert_array_equal(counted, expected)


@pytest.mark.parametrize("ignore", [-1, 0, 3, 65535])
def test_any_id_may_mean_ignore(ignore):
  """ADE20K files mark "other" by 0, so 0 may be the ignore label."""
  label, prediction = example()
  label[label == 3] = 2
  label = np.where(label == IGNORE, ignore, label.astype(np.int32))
  expected = np.zeros((4, 4), np.int64)
  keep = label != ignore
  np.add.at(expected, (label[keep], prediction[keep]), 1)
  np.testing.assert_array_equal(
    confusion(label, prediction, 4, ignore), expected
  )


def test_counts_stay_exact_beyond_float32():
  label = jnp.zeros(2**24 + 1, jnp.uint8)
  assert confusion(label, label, 2)[0, 0] == 2**24 + 1


def test_scores_equal_sets_of_pixels():
  label, prediction = example()
  keep = label != IGNORE
  label, prediction = label[keep], prediction[keep]
  got = scores(np.asarray(confusion(label, prediction, 4)).astype(np.int64))
  iou, accuracy, dice, share = [], [], [], []
  for c in range(4):
    t = set(np.flatnonzero(label == c))
    p = set(np.flatnonzero(prediction == c))
    iou.append(len(t & p) / len(t | p))
    dice.append(2 * len(t & p) / (len(t) + len(p)))
    accuracy.append(len(t & p) / len(t))
    share.append(len(t) / label.size)
  expected = {
    "iou": iou,
    "dice": dice,
    "accuracy": accuracy,
    "miou": np.mean(iou),
    "mean_dice": np.mean(dice),
    "mean_accuracy": np.mean(accuracy),
    "pixel_accuracy": np.mean(label == prediction),
    "frequency_weighted_iou": np.dot(share, iou),
  }
  assert got.keys() == expected.keys()
  for key, value in expected.items():
    np.testing.assert_allclose(got[key], value, rtol=1e-12, err_msg=key)


# Truth has classes 0 and 1, the prediction has 0 and 2. Class 1 is missed, 2 is
# a false positive, 3 occurs nowhere. The IoU of class 0 is 6 / (6 + 2 + 2).
MISSED = np.zeros((4, 4), np.int64)
MISSED[0] = [6, 0, 2, 0]
MISSED[1] = [2, 0, 1, 0]


@pytest.mark.parametrize(
  "absent, miou",
  [("skip", 0.6 / 3), ("zero", 0.6 / 4), ("one", 1.6 / 4), ("nan", np.nan)],
)
def test_absent_class_by_convention(absent, miou):
  got = scores(MISSED, absent=absent)
  np.testing.assert_allclose(got["miou"], miou)
  np.testing.assert_allclose(got["iou"][:3], [0.6, 0, 0])
  # Only classes 0 and 1 have true pixels, so only they have an accuracy.
  np.testing.assert_allclose(got["mean_accuracy"], (6 / 8 + 0) / 2)
  np.testing.assert_allclose(got["accuracy"], [0.75, 0, np.nan, np.nan])
  np.testing.assert_allclose(got["pixel_accuracy"], 6 / 11)
  np.testing.assert_allclose(got["frequency_weighted_iou"], 8 / 11 * 0.6)


@pytest.mark.parametrize("absent", ABSENT)
def test_nothing_counted_is_nan_and_silent(absent):
  got = scores(np.zeros((3, 3), np.int64), absent=absent)
  for key in ("miou", "pixel_accuracy", "mean_accuracy", "mean_dice"):
    assert np.isnan(got[key])


@pytest.mark.parametrize("absent", ABSENT)
def test_perfect_prediction_scores_one(absent):
  got = scores(np.diag([5, 1, 10**12]), absent=absent)
  for key, value in got.items():
    np.testing.assert_array_equal(value, np.ones_like(value), err_msg=key)


def test_unknown_convention_says_which_exist():
  with pytest.raises(UserError, match="'skpi' .did you mean 'skip'"):
    scores(MISSED, absent="skpi")
