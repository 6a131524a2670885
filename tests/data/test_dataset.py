"""Attributes of an open data set, and the layouts of files it accepts."""

import numpy as np
import pytest

from jaxseg import data
from jaxseg.data import shapes
from jaxseg.data.datasets import DATASETS, voc_palette


def test_attributes_of_a_folder(folder, configure, capsys):
  dataset = data.open(configure(folder()))
  assert dataset.class_names == ("class_0", "class_1", "class_2")
  assert dataset.palette == voc_palette(3)
  assert dataset.mean == DATASETS["folder"].mean
  assert dataset.std == DATASETS["folder"].std
  assert dataset.splits["train"] == 5
  assert dataset.splits["val"] == 3
  assert dataset.example_name("val", 0) == "images/val/n05.png"


def test_pixels_are_counted_before_shrinking(folder, configure):
  root = folder({"train": 2, "val": 1}, sizes=((40, 40),))
  dataset = data.open(configure(root))
  source = data.sources.find("folder", str(root))
  masks = np.stack([source.ids("train", i) for i in range(2)])
  expected = [(masks == k).sum() for k in range(3)]
  np.testing.assert_array_equal(dataset.class_pixels("train"), expected)


def test_shapes(configure, monkeypatch):
  monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 5, "val": 4})
  dataset = data.open(configure(name="shapes"))
  assert dataset.splits["train"] > dataset.splits["val"]
  assert dataset.example_name("val", 3) == "shapes/val/3"


def test_split_test_replaces_a_missing_val(folder, configure, capsys):
  root = folder({"train": 3, "test": 2})
  dataset = data.open(configure(root))
  assert dataset.eval_split == "test"
  assert "no split 'val'; evaluating on 'test'" in capsys.readouterr().err


def test_a_folder_without_splits_is_scored_whole(folder, configure, capsys):
  names = ("a", "b", "c")
  for root in (folder({"": 20}), folder({"train": 20}, root="b")):
    config = configure(root, class_names=names)
    whole = data.open(config, training=False, whole=True)
    assert (whole.splits, whole.eval_split) == ({"all": 20}, "all")
    assert "all of its 20 images are scored" in capsys.readouterr().err
    assert data.open(config, training=False).splits == {"train": 18, "val": 2}
    config.data.eval_split = "all"
    assert data.open(config, training=False).splits == {"all": 20}
  config = configure(folder(root="split"), class_names=names)
  assert data.open(config, training=False, whole=True).eval_split == "val"


def test_splits_may_have_any_name(folder, configure):
  root = folder({"training": 3, "validation": 2})
  fields = {"train_split": "training", "eval_split": "validation"}
  dataset = data.open(configure(root, **fields))
  assert dataset.splits["training"] == 3


@pytest.mark.parametrize("split", ["", "train"])
def test_automatic_split(folder, configure, split):
  root = folder({split: 20})
  config = configure(root, val_fraction=0.2)
  dataset = data.open(config)
  names = {
    part: [dataset.example_name(part, i) for i in range(dataset.splits[part])]
    for part in ("train", "val")
  }
  assert len(names["train"]) == 16 and len(names["val"]) == 4
  assert not set(names["train"]) & set(names["val"])
  # The split depends on the names alone, not on the seed or the folder.
  config.seed = 7
  again = data.open(config)
  config = configure(root.rename(root.with_name("moved")), val_fraction=0.2)
  for other in (again, data.open(config)):
    assert [other.example_name("val", i) for i in range(4)] == names["val"]


def test_classes_absent_from_training_are_listed(folder, configure):
  names = ("a", "b", "c", "never")
  dataset = data.open(configure(folder(), class_names=names))
  assert dataset.absent_classes() == ("never",)


def test_given_names_colours_and_ids(folder, configure):
  config = configure(
    folder(),
    class_names=("a", "b"),
    palette=((1, 2, 3), (4, 5, 6)),
    label_map="{2: 255}",
    mean=(0.5, 0.5, 0.5),
    std=(1.0, 1.0, 1.0),
  )
  dataset = data.open(config)
  assert dataset.palette == ((1, 2, 3), (4, 5, 6))
  batch = next(dataset.train_batches())
  assert set(np.unique(batch["label"])) == {0, 1, 255}
  assert dataset.class_pixels("train").sum() < 5 * 20 * 24


def test_binary_masks_with_the_proposed_label_map(folder, configure, write):
  root = folder(classes=2)
  for path in root.glob("masks/*/*.png"):
    write(path, 255 * np.eye(20, 24, dtype=np.uint8))
  dataset = data.open(configure(root, label_map="{255: 1}"))
  assert dataset.class_names == ("class_0", "class_1")
  batch = next(dataset.train_batches())
  # The rest of the canvas has the ignore label.
  assert set(np.unique(batch["label"])) == {0, 1, 255}


def camvid(folder, write, tmp_path):
  """Writes two train pairs and one val pair in the tutorial's folders."""
  for split, count in (("train", 2), ("val", 1)):
    for i in range(count):
      image = np.full((36, 48, 3), 7 * i, np.uint8)
      write(tmp_path / f"camvid/{split}/{i}.png", image)
      ids = np.arange(36, dtype=np.uint8)[:, None] % 12
      mask = np.repeat(ids, 48, axis=1)
      write(tmp_path / f"camvid/{split}annot/{i}.png", mask)
  return tmp_path / "camvid"


@pytest.mark.parametrize("listed", [False, True])
def test_camvid_layouts(folder, configure, write, tmp_path, listed):
  root = camvid(folder, write, tmp_path)
  if listed:
    # The tutorial's lists have the paths of its author's machine.
    for split, count in (("train", 2), ("val", 1)):
      lines = [
        f"/SegNet/CamVid/{split}/{i}.png /SegNet/CamVid/{split}annot/{i}.png"
        for i in range(count)
      ]
      (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
  config = configure(root, "camvid", canvas=(36, 48))
  config.train.batch_size = 2
  dataset = data.open(config)
  assert dataset.class_names == DATASETS["camvid"].class_names
  assert dataset.palette == DATASETS["camvid"].palette
  batch = next(dataset.train_batches())
  assert set(np.unique(batch["label"])) == {*range(11), 255}
  assert (np.asarray(batch["label"])[:, 11] == 255).all()
