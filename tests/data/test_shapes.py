"""`shapes` is repeatable and varied, and classes share their colours."""

import hashlib
import itertools
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxseg.data import shapes

NUM_CLASSES = len(shapes.CLASS_NAMES)
IGNORE = shapes.IGNORE_LABEL
SOME = [("train", 0), ("train", 1999), ("val", 0), ("val", 17)]


@pytest.fixture(scope="module")
def drawn():
  """Returns images and labels of 1000 training and all validation examples."""
  return {
    split: tuple(
      np.stack(arrays)
      for arrays in zip(
        *(shapes.draw(split, i) for i in range(count)), strict=True
      )
    )
    for split, count in (("train", 1000), ("val", 200))
  }


def _digest(examples) -> str:
  state = hashlib.sha256()
  for split, index in examples:
    for array in shapes.draw(split, index):
      state.update(array.tobytes())
  return state.hexdigest()


def test_interface():
  assert shapes.SPLIT_SIZES == {"train": 2000, "val": 200}
  assert len(set(shapes.CLASS_NAMES)) == len(set(shapes.PALETTE)) == NUM_CLASSES
  assert all(
    len(c) == 3 and 0 <= min(c) <= max(c) <= 255 for c in shapes.PALETTE
  )
  for example in SOME:
    image, label = shapes.draw(*example)
    assert image.shape == (*shapes.SIZE, 3) and image.dtype == np.uint8
    assert label.shape == shapes.SIZE and label.dtype == np.uint8
    assert set(np.unique(label)) <= {*range(NUM_CLASSES), IGNORE}


def test_examples_depend_on_split_and_index_alone():
  code = (
    "import hashlib\n"
    "from jaxseg.data import shapes\n"
    f"drawn = {{e: shapes.draw(*e) for e in reversed({SOME})}}\n"
    "state = hashlib.sha256()\n"
    f"for e in {SOME}:\n"
    "  for array in drawn[e]:\n"
    "    state.update(array.tobytes())\n"
    "print(state.hexdigest())\n"
  )
  other = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert other.stdout.strip() == _digest(SOME)


def test_no_two_examples_are_the_same(drawn):
  images = np.concatenate([images for images, _ in drawn.values()])
  assert len({image.tobytes() for image in images}) == 1200


@pytest.mark.parametrize("split", shapes.SPLIT_SIZES)
def test_every_class_is_frequent(drawn, split):
  labels = drawn[split][1]
  for k in range(NUM_CLASSES):
    assert (labels == k).any((1, 2)).mean() > 0.25, shapes.CLASS_NAMES[k]
    assert (labels == k).mean() > 0.015, shapes.CLASS_NAMES[k]


def test_every_border_is_ignored(drawn):
  """Ignored pixels separate any two classes."""
  labels = np.concatenate([labels for _, labels in drawn.values()])
  for axis in (1, 2):
    a, b = np.split(labels, [1], axis)[1], np.split(labels, [-1], axis)[0]
    assert not ((a != b) & (a != IGNORE) & (b != IGNORE)).any()
  assert 0.03 < (labels == IGNORE).mean() < 0.15


def _areas(label: np.ndarray, k: int) -> list[int]:
  """Returns the number of pixels of each connected region of class `k`."""
  left = set(zip(*(a.tolist() for a in np.nonzero(label == k)), strict=True))
  areas = []
  while left:
    front, area = [left.pop()], 0
    while front:
      y, x = front.pop()
      area += 1
      near = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & left
      left -= near
      front += near
    areas.append(area)
  return areas


def test_sizes_span_a_factor_of_eight(drawn):
  """The sides do, so areas span a factor of 64.

  Regions of fewer than 9 pixels and 2 % at either end are left out.
  """
  areas = [
    area
    for label, k in itertools.product(drawn["val"][1], range(1, NUM_CLASSES))
    for area in _areas(label, k)
    if area >= 9
  ]
  low, high = np.quantile(areas, [0.02, 0.98])
  assert (high / low) ** 0.5 >= 8


def test_plain_figures_have_the_same_colours(drawn):
  """The total variation between histograms of 64 colours is small.

  Textured figures have two colours each, so only plain ones are compared.
  """
  images, labels = drawn["train"]
  cells = (images // 64).astype(int) @ (16, 4, 1)
  plain = [shapes.CLASS_NAMES.index(n) for n in ("disc", "square", "ring")]
  histograms = [
    np.bincount(cells[labels == k], minlength=64) / (labels == k).sum()
    for k in plain
  ]
  for p, q in itertools.combinations(histograms, 2):
    assert np.abs(p - q).sum() / 2 < 0.25


def test_all_is_drawn_in_seconds():
  start = time.process_time()
  for index in range(50):
    shapes.draw("train", index)
  each = (time.process_time() - start) / 50
  assert each * sum(shapes.SPLIT_SIZES.values()) < 20
