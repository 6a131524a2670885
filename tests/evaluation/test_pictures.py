"""Pictures: indexed PNGs, overlays, and sheets of truth and prediction."""

import numpy as np
from PIL import Image
import pytest

from jaxseg.errors import UserError
from jaxseg.evaluation import pictures

PALETTE = ((0, 0, 0), (220, 20, 60), (0, 130, 180), (70, 130, 70))
NAMES = ("background", "a", "b", "c")
IGNORE = 255


def ids(shape=(9, 13), classes=4, seed=0):
  return np.random.default_rng(seed).integers(0, classes, shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_indexed_png_keeps_ids_and_colours(tmp_path, dtype):
  path = tmp_path / "new" / "ids.png"
  expected = ids().astype(dtype)
  pictures.save(path, pictures.indexed(expected, PALETTE))
  with Image.open(path) as image:
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), expected)
    np.testing.assert_array_equal(
      np.asarray(image.convert("RGB")), np.array(PALETTE)[expected]
    )


@pytest.mark.parametrize("classes", [256, 257, 1000])
def test_every_id_of_many_classes_survives(tmp_path, classes):
  palette = np.random.default_rng(0).integers(0, 256, (classes, 3)).tolist()
  expected = np.arange(classes).reshape(1, -1)
  pictures.save(tmp_path / "ids.png", pictures.indexed(expected, palette))
  with Image.open(tmp_path / "ids.png") as image:
    assert image.mode == ("P" if classes == 256 else "I;16")
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_overlay_blends_inside_and_is_full_at_borders():
  image = np.full((6, 8, 3), 100, np.uint8)
  classes = np.zeros((6, 8), int)
  classes[:, 3:] = 1
  classes[:, 6:] = 2
  out = pictures.overlay(image, classes, PALETTE)
  np.testing.assert_array_equal(out[:, :3], 100)  # black: left clear
  np.testing.assert_array_equal(
    out[0, 4], np.rint((100 + np.array(PALETTE[1])) / 2)
  )
  np.testing.assert_array_equal(out[0, 5], PALETTE[1])
  np.testing.assert_array_equal(
    pictures.overlay(image, classes, PALETTE, alpha=0.0)[0, 4], 100
  )


def test_colour_shows_ignored_pixels_in_no_class_colour():
  classes = np.full((8, 8), IGNORE)
  classes[:4] = 1
  out = pictures.colour(classes, PALETTE, IGNORE)
  np.testing.assert_array_equal(out[:4], np.broadcast_to(PALETTE[1], (4, 8, 3)))
  assert len(np.unique(out[4:].reshape(-1, 3), axis=0)) == 2


def sheet(size, n=2, ignored=True):
  labels = ids((n, *size), seed=1)
  if ignored:
    labels[:, :3] = IGNORE
  images = np.random.default_rng(2).integers(0, 256, (n, *size, 3), np.uint8)
  return (
    pictures.comparison(
      list(images),
      list(labels),
      list(ids((n, *size), seed=3)),
      palette=PALETTE,
      class_names=NAMES,
      ignore_label=IGNORE,
    ),
    images,
    labels,
  )


@pytest.mark.parametrize("size, factor", [((64, 64), 4), ((40, 100), 7)])
def test_small_images_are_enlarged_by_whole_factors(size, factor):
  picture, images, _ = sheet(size)
  cell = images[0].repeat(factor, axis=0).repeat(factor, axis=1)
  assert min(cell.shape[:2]) >= 256
  pixels = np.asarray(picture)
  top = pictures.LINE + pictures.GAP
  np.testing.assert_array_equal(
    pixels[top:, pictures.GAP :][: cell.shape[0], : cell.shape[1]], cell
  )


def test_examples_of_different_sizes_share_one_factor():
  sizes = [(64, 48), (32, 64)]
  images = [np.full((*size, 3), 77, np.uint8) for size in sizes]
  labels = [np.ones(size, np.uint8) for size in sizes]
  picture = pictures.comparison(
    images,
    labels,
    labels,
    palette=PALETTE,
    class_names=NAMES,
    ignore_label=IGNORE,
  )
  pixels = np.asarray(picture)
  top, gap = pictures.LINE + pictures.GAP, pictures.GAP
  for row, (height, width) in enumerate(4 * np.array(sizes)):
    cell = pixels[top + row * (256 + gap) :, gap:][:256, :256]
    inside = np.zeros((256, 256), bool)
    inside[:height, :width] = True
    assert (cell[inside] == 77).all()
    assert (cell[~inside] == pictures.PAPER[0]).all()


@pytest.mark.parametrize("size", [(1024, 2048), (360, 480), (10, 3000)])
def test_large_images_stay_viewable(size):
  picture, *_ = sheet(size, n=1)
  assert picture.width <= 3 * (pictures.MAX_SIDE + 2 * pictures.GAP)


def test_sheet_shows_truth_and_prediction_in_the_palette():
  picture, _, labels = sheet((256, 256), n=1)
  pixels = np.asarray(picture).astype(int)
  top, width = pictures.LINE + pictures.GAP, 256 + pictures.GAP
  truth, predicted = (
    pixels[top : top + 256, pictures.GAP + i * width :][:, :256] for i in (1, 2)
  )
  valid, colours = labels[0] != IGNORE, np.array(PALETTE)
  expected = colours[ids((1, 256, 256), seed=3)[0]]
  np.testing.assert_array_equal(truth[valid], colours[labels[0][valid]])
  np.testing.assert_array_equal(predicted[valid], expected[valid])
  # Ignored pixels are half striped in the prediction.
  np.testing.assert_array_equal(
    predicted[~valid], (truth[~valid] + expected[~valid]) // 2
  )


@pytest.mark.parametrize("classes", [2, 150])
def test_legend_lists_any_number_of_classes(classes):
  rng = np.random.default_rng(0)
  palette = rng.integers(0, 256, (classes, 3)).tolist()
  labels = (np.arange(64 * 64) % classes).reshape(1, 64, 64)
  picture = pictures.comparison(
    [np.zeros((64, 64, 3), np.uint8)],
    list(labels),
    list(labels),
    palette=palette,
    class_names=tuple(f"class number {i}" for i in range(classes)),
    ignore_label=IGNORE,
  )
  below = np.asarray(picture)[pictures.LINE + 2 * pictures.GAP + 256 :]
  found = {tuple(c) for c in below.reshape(-1, 3)}
  assert {tuple(c) for c in palette} <= {tuple(map(int, c)) for c in found}


@pytest.mark.parametrize("classes", [1, 59, 300])
def test_a_legend_of_its_own_has_every_colour_on_a_screenful(classes):
  palette = np.random.default_rng(0).integers(1, 256, (classes, 3)).tolist()
  names = [f"class number {i}" for i in range(classes)]
  pixels = np.asarray(pictures.legend(names, palette))
  assert len(pixels) <= pictures.LEGEND_ROWS * pictures.LINE + 2 * pictures.GAP
  found = {tuple(map(int, c)) for c in np.unique(pixels.reshape(-1, 3), axis=0)}
  assert {tuple(c) for c in palette} <= found
  border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
  assert (border == pictures.PAPER).all()  # nothing is cut off


def test_overlay_is_the_same_in_stripes(monkeypatch):
  image = np.random.default_rng(2).integers(0, 256, (9, 13, 3), np.uint8)
  whole = pictures.overlay(image, ids(), PALETTE)
  monkeypatch.setattr(pictures, "STRIPE", 26)
  np.testing.assert_array_equal(pictures.overlay(image, ids(), PALETTE), whole)


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
  path = tmp_path / "a.png"
  picture = pictures.indexed(ids(), PALETTE)
  pictures.save(path, picture)
  before = path.read_bytes()

  def full(self, fp, format):
    fp.write(b"half a file")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(Image.Image, "save", full)
  with pytest.raises(UserError) as error:
    pictures.save(path, picture)
  assert str(path) in str(error.value) and "No space left" in str(error.value)
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_pictures_on_an_object_store(bucket):
  expected = ids()
  path = bucket / "pictures" / "ids.png"
  pictures.save(path, pictures.indexed(expected, PALETTE))
  with path.open("rb") as file, Image.open(file) as image:
    np.testing.assert_array_equal(np.asarray(image), expected)
