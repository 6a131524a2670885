"""What `resolve` fills in, and the layouts it accepts."""

import numpy as np
import pytest

from jaxseg import data
from jaxseg.data.datasets import DATASETS, voc_palette


def test_folder_is_discovered(folder, configure, capsys):
  config = data.resolve(configure(folder()))
  assert config.data.class_names == ("class_0", "class_1", "class_2")
  assert config.data.palette == voc_palette(3)
  assert config.data.mean == DATASETS["folder"].mean
  assert config.data.std == DATASETS["folder"].std
  assert data.num_examples(config, "train") == 5
  assert data.num_examples(config, "val") == 3
  assert data.example_name(config, "val", 0) == "images/val/n05.png"
  assert data.resolve(config) == config
  assert config.is_locked


def test_pixels_are_counted_before_shrinking(folder, configure):
  root = folder({"train": 2, "val": 1}, sizes=((40, 40),))
  config = data.resolve(configure(root))
  source = data.sources.find(config.data)
  masks = np.stack([source.ids("train", i) for i in range(2)])
  expected = [(masks == k).sum() for k in range(3)]
  np.testing.assert_array_equal(data.class_pixels(config, "train"), expected)


def test_shapes(configure):
  config = configure(name="shapes")
  assert data.num_examples(config, "train") > data.num_examples(config, "val")
  assert data.example_name(config, "val", 3) == "shapes/val/3"


def test_test_stands_in_for_val(folder, configure, capsys):
  root = folder({"train": 3, "test": 2})
  config = data.resolve(configure(root))
  assert config.data.eval_split == "test"
  assert "no split 'val'; evaluating on 'test'" in capsys.readouterr().err


def test_any_split_names(folder, configure):
  root = folder({"training": 3, "validation": 2})
  fields = {"train_split": "training", "eval_split": "validation"}
  config = data.resolve(configure(root, **fields))
  assert data.num_examples(config, "training") == 3


@pytest.mark.parametrize("split", ["", "train"])
def test_automatic_split(folder, configure, split):
  root = folder({split: 20})
  config = configure(root, val_fraction=0.2)
  names = {
    part: [
      data.example_name(config, part, i)
      for i in range(data.num_examples(config, part))
    ]
    for part in ("train", "val")
  }
  assert len(names["train"]) == 16 and len(names["val"]) == 4
  assert not set(names["train"]) & set(names["val"])
  # The names alone decide: not the seed, not the place.
  config.seed = 7
  again = data.resolve(config)
  moved = configure(root.rename(root.with_name("moved")), val_fraction=0.2)
  for c in (again, moved):
    assert [data.example_name(c, "val", i) for i in range(4)] == names["val"]


def test_class_absent_from_training_is_told(folder, configure, capsys):
  names = ("a", "b", "c", "never")
  data.resolve(configure(folder(), class_names=names))
  assert "no pixel of never in the training masks" in capsys.readouterr().err


def test_users_names_colours_and_ids(folder, configure):
  config = configure(
    folder(),
    class_names=("a", "b"),
    palette=((1, 2, 3), (4, 5, 6)),
    label_map="{2: 255}",
    mean=(0.5, 0.5, 0.5),
    std=(1.0, 1.0, 1.0),
  )
  config = data.resolve(config)
  assert config.data.palette == ((1, 2, 3), (4, 5, 6))
  batch = next(data.train_batches(config))
  assert set(np.unique(batch["label"])) == {0, 1, 255}
  assert data.class_pixels(config, "train").sum() < 5 * 20 * 24


def test_binary_masks_with_the_offered_line(folder, configure, write):
  root = folder(classes=2)
  for path in root.glob("masks/*/*.png"):
    write(path, 255 * np.eye(20, 24, dtype=np.uint8))
  config = data.resolve(configure(root, label_map="{255: 1}"))
  assert config.data.class_names == ("class_0", "class_1")
  batch = next(data.train_batches(config))
  assert set(np.unique(batch["label"])) == {0, 1, 255}  # 255 is the canvas


def camvid(folder, write, tmp_path):
  """Two train and one val pair in the tutorial's folders."""
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
  if listed:  # as the tutorial wrote them: paths inside the author's container
    for split, count in (("train", 2), ("val", 1)):
      lines = [
        f"/SegNet/CamVid/{split}/{i}.png /SegNet/CamVid/{split}annot/{i}.png"
        for i in range(count)
      ]
      (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
  config = configure(root, "camvid", canvas=(36, 48))
  config.train.batch_size = 2
  config = data.resolve(config)
  assert config.data.class_names == DATASETS["camvid"].class_names
  assert config.data.palette == DATASETS["camvid"].palette
  batch = next(data.train_batches(config))
  assert set(np.unique(batch["label"])) == {*range(11), 255}
  assert (np.asarray(batch["label"])[:, 11] == 255).all()
