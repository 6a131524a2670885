"""Bad data is refused in one line that names the problem and the fix."""

import shutil

import numpy as np
from PIL import Image
import pytest

from jaxseg import data
from jaxseg.errors import UserError


def refused(config) -> str:
  """Returns the error of `data.open`, which is one line."""
  with pytest.raises(UserError) as caught:
    data.open(config)
  line = str(caught.value)
  assert "\n" not in line
  return line


def assert_says(line: str, *words: str):
  for word in words:
    assert word in line, f"{word!r} is not in: {line}"


@pytest.fixture
def mask(folder):
  """Returns a valid folder and the path of one of its masks."""
  root = folder()
  return root, root / "masks/train/n02.png"


@pytest.mark.parametrize("name", ["folder", "camvid"])
def test_no_path(configure, name):
  line = refused(configure("", name))
  assert_says(line, "data.path is empty", "--config.data.path=", "expected")


def test_missing_path(configure, tmp_path):
  line = refused(configure(tmp_path / "nowhere"))
  assert_says(line, "nowhere", "does not exist", "images/train", "masks/val")
  (tmp_path / "file").write_text("")
  assert_says(refused(configure(tmp_path / "file")), "is a file")


@pytest.mark.parametrize(
  "name, wanted", [("folder", "images/"), ("camvid", "train.txt")]
)
def test_folder_of_another_layout(configure, tmp_path, name, wanted):
  (tmp_path / "set/photos").mkdir(parents=True)
  line = refused(configure(tmp_path / "set", name))
  assert_says(line, "holds photos", "expected", wanted)


def test_empty_folder(configure, tmp_path):
  for part in ("images", "masks"):
    (tmp_path / "set" / part).mkdir(parents=True)
  line = refused(configure(tmp_path / "set"))
  assert_says(line, "images holds nothing; expected image files")
  (tmp_path / "set/images/notes.txt").write_text("")
  assert_says(refused(configure(tmp_path / "set")), "holds only .txt")


def test_missing_masks(folder, configure):
  root = folder({"train": 9, "val": 2})
  for i in range(7):
    (root / f"masks/train/n{i:02d}.png").unlink()
  line = refused(configure(root))
  assert_says(line, "7 of 9 images have no mask in", "masks/train")
  assert_says(line, "(n00.png, n01.png, n02.png, n03.png, n04.png, ...)")
  assert "masks have no image" not in line


def test_missing_images(folder, configure):
  root = folder()
  (root / "images/val/n06.png").unlink()
  line = refused(configure(root))
  assert_says(line, "1 of 3 masks have no image in", "(n06.png)", "remove")


def test_other_mask_names(folder, configure):
  root = folder()
  for path in list(root.glob("masks/*/*.png")):
    path.rename(path.with_name(f"{path.stem}_mask.png"))
  line = refused(configure(root))
  assert_says(line, "5 of 5 images", "5 of 5 masks", "end in '_mask'", "rename")


def test_two_images_of_one_name(folder, configure):
  root = folder()
  shutil.copy(root / "images/train/n00.png", root / "images/train/n00.bmp")
  assert_says(refused(configure(root)), "n00.bmp and n00.png", "keep one")


def test_broken_links(folder, configure):
  root = folder()
  path = root / "images/train/n00.png"
  path.unlink()
  path.symlink_to("gone.png")
  line = refused(configure(root))
  assert_says(line, f"{path} is a link to gone.png, which does not exist")


def test_loose_images_beside_splits(folder, configure):
  root = folder()
  shutil.copy(root / "images/train/n00.png", root / "images/n00.png")
  assert_says(refused(configure(root)), "1 images (n00.png", "train, val")


def test_missing_mask_folder(folder, configure):
  root = folder()
  (root / "masks/val").rename(root / "masks/validation")
  line = refused(configure(root))
  assert_says(line, "masks/val does not exist", "holds train, validation")


def test_misnamed_split(folder, configure):
  line = refused(configure(folder({"training": 2, "val": 1})))
  assert_says(line, "no split 'train'", "training, val", "data.train_split")
  dataset = data.open(configure(folder(root="other")))
  with pytest.raises(UserError, match="no split 'tset'.*train, val"):
    dataset.eval_batches("tset")


def test_size_mismatch(mask, configure, write):
  root, path = mask
  write(path, np.zeros((20, 23), np.uint8))
  line = refused(configure(root))
  assert_says(line, "masks/train/n02.png is 20x23", "n02.png is 20x24")


def test_size_mismatch_from_exif(mask, configure):
  root, _ = mask
  path = root / "images/train/n02.png"
  exif = Image.Exif()
  exif[0x0112] = 6
  with Image.open(path) as image:
    image.load()
    image.save(path, exif=exif)
  line = refused(configure(root))
  assert_says(line, "is 20x24", "is 24x20", "EXIF orientation 6")


def test_several_bad_files_are_counted(folder, configure, write):
  root = folder()
  for i in (1, 3):
    write(root / f"masks/train/n{i:02d}.png", np.zeros((2, 2), np.uint8))
  line = refused(configure(root))
  assert_says(line, "n01.png is 2x2", "2 such files among 8")


def test_ids_out_of_range(mask, configure, write):
  root, path = mask
  ids = np.zeros((20, 24), np.uint8)
  ids[:2], ids[2, :5] = 38, 7
  write(path, ids)
  line = refused(configure(root, class_names=("a", "b", "c")))
  assert_says(line, "[7, 38] are outside 0..2", "data.ignore_label=255")
  assert_says(line, "id 7 in 5 pixels of 1 masks (first: masks/train/n02.png)")
  assert_says(line, "id 38 in 48 pixels of 1 masks")
  assert_says(line, "--config.data.label_map='{7: 255, 38: 255}'")


def test_proposed_label_map_extends_the_given_one(mask, configure, write):
  root, path = mask
  write(path, np.full((20, 24), 38, np.uint8))
  names = ("a", "b", "c")
  config = configure(root, class_names=names, label_map="{2: 9, 1: 0}")
  line = refused(config)
  assert_says(line, "'{1: 0, 2: 255, 9: 255, 38: 255}'")
  config.data.label_map = "{1: 0, 2: 255, 9: 255, 38: 255}"
  data.open(config)


def test_negative_ids(mask, configure):
  root, path = mask
  path.unlink()
  ids = np.zeros((20, 24), np.int32)
  ids[0, :3] = -1
  Image.fromarray(ids).save(path.with_suffix(".tif"))
  line = refused(configure(root))
  assert_says(line, "label id -1 is negative", "3 pixels", "'{-1: 255}'")
  line = refused(configure(root, class_names=("a", "b", "c")))
  assert_says(line, "[-1] are outside 0..2", "'{-1: 255}'")
  data.open(configure(root, label_map="{-1: 255}"))


@pytest.mark.parametrize("names", [(), ("background", "thing")])
@pytest.mark.parametrize("ignore", [255, 254])
def test_binary_masks_of_0_and_255(folder, configure, write, names, ignore):
  root = folder()
  for path in root.glob("masks/*/*.png"):
    write(path, 255 * np.eye(20, 24, dtype=np.uint8))
  line = refused(configure(root, class_names=names, ignore_label=ignore))
  assert_says(line, "only the ids 0 and 255", "label_map='{255: 1}'")


def test_scattered_ids(folder, configure, write):
  root = folder()
  for path in root.glob("masks/*/*.png"):
    write(path, 100 * np.eye(20, 24, dtype=np.uint8))
  line = refused(configure(root))
  assert_says(line, "ids [0, 100]", "label_map='{100: 1}'")
  dataset = data.open(configure(root, label_map="{100: 1}"))
  assert len(dataset.class_names) == 2


@pytest.mark.parametrize(
  ("stray", "fields", "advice"),
  [
    (200, {}, "label_map='{200: 255}'"),
    (65535, {"label_map": "{255: 0}"}, "ignore_label=65535"),
    (65535, {}, "label_map='{65535: 255}'"),
  ],
)
def test_a_stray_id_can_be_ignored_or_become_a_class(
  mask, configure, write, stray, fields, advice
):
  root, path = mask
  ids = np.zeros((20, 24), np.uint16)
  ids[0, 0] = stray
  write(path, ids)
  line = refused(configure(root, **fields))
  assert_says(line, f"id {stray} in 1 pixels", f"to ignore [{stray}] pass")
  assert_says(
    line, f"pass --config.data.{advice}", f"{stray}: 3", "classes.txt"
  )
  if advice.startswith("label_map"):
    fields = {"label_map": f"{{{stray}: 255}}"}
  else:
    fields["ignore_label"] = stray
  assert len(data.open(configure(root, **fields)).class_names) == 3


def test_an_ignore_label_that_is_a_class(folder, configure):
  """The masks hold 0, 1, 2, and 255 where they are to be ignored."""
  line = refused(configure(folder(), ignore_label=1))
  assert_says(line, "data.ignore_label=1 lies among the class ids 0..2")
  assert_says(line, "if id 1 is a class, pass --config.data.ignore_label=255;")


def test_masks_of_a_single_class(folder, configure, write):
  root = folder()
  for path in root.glob("masks/*/*.png"):
    write(path, np.zeros((20, 24), np.uint8))
  assert_says(refused(configure(root)), "no id but [0]", "nothing to learn")


def test_grey_masks(folder, configure, write):
  root = folder()
  for path in root.glob("masks/*/*.png"):
    ids = np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8)
    write(path, ids)
  line = refused(configure(root))
  assert_says(line, "different ids each", "lossy compression", "class_names")


def test_ignore_label_among_the_classes(folder, configure, write):
  root = folder()
  for path in root.glob("masks/*/*.png"):
    write(path, (np.arange(480) % 3).astype(np.uint8).reshape(20, 24))
  line = refused(configure(root, ignore_label=0))
  assert_says(line, "data.ignore_label=0 lies among", "ignore_label=255")
  assert_says(line, "label_map='{0: 255, 1: 0, 2: 1}'")
  names = ("a", "b", "c")
  config = configure(folder(root="b"), ignore_label=2, class_names=names)
  config.data.label_map = "{255: 2}"
  assert_says(refused(config), "data.ignore_label=2 is one of the classes")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_mask(mask, configure, write, mode):
  root, path = mask
  colours = np.zeros((20, 24, len(mode)), np.uint8)
  colours[:, :, 0] = 128
  colours[0, :7] = 64
  write(path, colours)
  line = refused(configure(root))
  alpha = ", 0" if mode == "RGBA" else ""
  assert_says(line, "masks/train/n02.png", f"holds {mode} colours")
  assert_says(line, f"(128, 0, 0{alpha}) in 473 pixels")
  assert_says(line, f"(64, 64, 64{alpha and ', 64'}) in 7 pixels")


def test_grey_mask_saved_as_colour(mask, configure, write):
  root, path = mask
  write(path, np.ones((20, 24, 3), np.uint8))
  assert_says(refused(configure(root)), "three channels are equal")


def test_lossy_mask(mask, configure, write):
  root, path = mask
  path.unlink()
  write(path.with_suffix(".jpg"), np.zeros((20, 24), np.uint8))
  line = refused(configure(root))
  assert_says(line, "n02.jpg: a mask must not be JPEG", "PNG")


@pytest.mark.parametrize("loader", ["resident", "tfdata"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("part", ["images", "masks"])
def test_truncated_file(mask, configure, loader, suffix, part):
  root, path = mask
  if part == "images":
    path = root / "images/train/n02.png"
    with Image.open(path) as image:
      path.unlink()
      path = path.with_suffix(suffix)
      image.save(path)
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
  line = refused(configure(root, loader=loader))
  assert_says(line, str(path), "cannot be read as an image", "restore it")
  assert not list((root.parent / "prepared").glob("*/*"))


def test_mask_that_is_no_image(mask, configure):
  root, path = mask
  path.write_text("not a picture")
  assert_says(refused(configure(root)), "n02.png: cannot be read")


def test_bad_camvid_lists(configure, folder, tmp_path):
  root = tmp_path / "camvid"
  root.mkdir()
  (root / "train.txt").write_text("train/a.png\n")
  assert_says(refused(configure(root, "camvid")), "train.txt, line 1: 1 words")
  (root / "train.txt").write_text("\ntrain/a.png trainannot/a.png\n")
  line = refused(configure(root, "camvid"))
  assert_says(line, "train.txt, line 2", "'train/a.png' does not exist")
  (root / "train.txt").write_text("")
  assert_says(refused(configure(root, "camvid")), "train.txt is empty")


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"name": "shape"}, ["data.name='shape'", "did you mean 'shapes'"]),
    ({"canvas": (16,)}, ["data.canvas=(16,)", "(height, width)"]),
    ({"palette": ((1, 2, 3),)}, ["data.palette has 1 colours for 3 classes"]),
    ({"class_names": ("abc",)}, ["('abc',) names one class", "two or more"]),
    ({"label_map": "255"}, ["data.label_map='255'", "'{255: 1, 38: 0}'"]),
  ],
)
def test_bad_fields(folder, configure, fields, words):
  config = configure(folder())
  config.data.update(fields)
  assert_says(refused(config), *words)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_bad_automatic_split(folder, configure, fraction):
  root = folder({"": 4})
  assert_says(refused(configure(root, val_fraction=fraction)), "val_fraction")


def test_one_image(folder, configure):
  assert_says(refused(configure(folder({"": 1}))), "holds one image")
