"""Placement on the canvas equals a computation in float64."""

import numpy as np
import pytest

from jaxseg.data.placement import Placement, fitted_size

PLACEMENT = Placement(canvas=(12, 16), fill=(10, 20, 30), ignore_label=255)
UINT8 = np.dtype(np.uint8)


def example(height, width):
  rng = np.random.default_rng(height * width)
  image = rng.integers(0, 256, (height, width, 3), np.uint8)
  return image, rng.integers(0, 5, (height, width)).astype(np.uint8)


def triangle(old: int, new: int) -> np.ndarray:
  """Returns the `[new, old]` matrix of an antialiased linear resize.

  Each row is a triangle of width 2 old / new.
  """
  scale = old / new
  centre = (np.arange(new)[:, None] + 0.5) * scale
  distance = np.abs(np.arange(old) + 0.5 - centre) / scale
  weight = np.maximum(0, 1 - distance)
  return weight / weight.sum(axis=1, keepdims=True)


def test_small_example_keeps_its_pixels():
  image, label = example(7, 16)
  made = PLACEMENT.place(image, label, UINT8)
  np.testing.assert_array_equal(made["image"][:7], image)
  np.testing.assert_array_equal(made["label"][:7], label)
  np.testing.assert_array_equal(made["size"], [7, 16])
  assert (made["image"][7:] == (10, 20, 30)).all()
  assert (made["label"][7:] == 255).all()
  assert {k: v.dtype.name for k, v in made.items()} == {
    "image": "uint8",
    "label": "uint8",
    "size": "int32",
  }


@pytest.mark.parametrize(
  "size, fitted", [((30, 40), (12, 16)), ((24, 8), (12, 4))]
)
def test_large_example_shrinks(size, fitted):
  image, label = example(*size)
  made = PLACEMENT.place(image, label, UINT8)
  height, width = fitted
  np.testing.assert_array_equal(made["size"], fitted)
  rows, columns = triangle(size[0], height), triangle(size[1], width)
  expected = np.einsum("ih,jw,hwc->ijc", rows, columns, image)
  difference = made["image"][:height, :width] - expected
  assert np.abs(difference).max() <= 1  # rounded after each axis
  y = np.floor((np.arange(height) + 0.5) * size[0] / height).astype(int)
  x = np.floor((np.arange(width) + 0.5) * size[1] / width).astype(int)
  np.testing.assert_array_equal(
    made["label"][:height, :width], label[np.ix_(y, x)]
  )
  assert (made["label"][:, width:] == 255).all()
  assert (made["image"][:, width:] == (10, 20, 30)).all()


@pytest.mark.parametrize(
  "size, fitted",
  [
    ((12, 16), (12, 16)),
    ((1, 1), (1, 1)),
    ((24, 16), (12, 8)),
    ((12, 17), (11, 16)),
    ((1000, 1), (12, 1)),
    ((1, 1000), (1, 16)),
  ],
)
def test_fitted_size(size, fitted):
  assert fitted_size(size, (12, 16)) == fitted


@pytest.mark.parametrize(
  "size, canvas, expected",
  [
    ((512, 512), (512, 512), (512, 512)),
    ((360, 480), (512, 512), (352, 480)),  # steps of 32
    ((3000, 4000), (512, 512), (384, 512)),  # 4:3 is 12 steps of 16
    ((1080, 1920), (512, 512), (288, 512)),  # 16:9 is 9 steps of 16
    ((2000, 3000), (512, 512), (352, 512)),  # 3:2 is 10.7 steps
    ((64, 64), (128, 128), (64, 64)),
    ((1, 1), (512, 512), (32, 32)),
    ((1000, 1), (12, 16), (12, 1)),
    ((5, 16), (10, 16), (5, 16)),
    ((360, 480), (360, 480), (360, 480)),
  ],
)
def test_input_size_is_a_multiple_of_a_sixteenth(size, canvas, expected):
  placement = Placement(canvas, (0, 0, 0), 255)
  assert placement.input_size(size) == expected


def test_whole_image_is_resized_once_and_its_label_is_placed():
  image, label = example(30, 29)
  made = PLACEMENT.place_whole(image, label, UINT8)
  assert made["image"].shape == (12, 12, 3)  # fitted to 12x12, as 12 steps
  rows, columns = triangle(30, 12), triangle(29, 12)
  expected = np.einsum("ih,jw,hwc->ijc", rows, columns, image)
  assert np.abs(made["image"] - expected).max() <= 1
  placed = PLACEMENT.place(image, label, UINT8)
  np.testing.assert_array_equal(made["label"], placed["label"])
  np.testing.assert_array_equal(made["size"], placed["size"])


def test_labels_are_mapped_before_they_are_placed():
  placement = Placement((4, 4), (0, 0, 0), 9, label_map=((255, 1), (11, 9)))
  ids = np.array([[0, 255], [11, 1]], np.uint8)
  made = placement.place(np.zeros((2, 2, 3), np.uint8), ids, UINT8)
  np.testing.assert_array_equal(made["label"][:2, :2], [[0, 1], [9, 1]])
  assert (made["label"][2:] == 9).all()


def test_sixteen_bit_labels():
  placement = Placement((4, 4), (0, 0, 0), 65535)
  ids = np.full((8, 8), 300, np.uint16)
  made = placement.place(
    np.zeros((8, 8, 3), np.uint8), ids, np.dtype(np.uint16)
  )
  assert made["label"].dtype == np.uint16
  assert (made["label"] == 300).all()
