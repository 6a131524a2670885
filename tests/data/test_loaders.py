"""Both loaders yield the same batches in the same order, also resumed."""

import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxseg import data
from jaxseg.data import order, shapes, sources
from jaxseg.data.evaluation import EvalBatches
from jaxseg.errors import UserError

LOADERS = ("tfdata", "resident")
SIZES = ((20, 24), (16, 16), (7, 9), (40, 12))


@pytest.fixture
def both_loaders(folder, configure):
  """Returns a function that opens one folder with each loader.

  The folder has 7 train and 3 val examples.
  """
  root = folder({"train": 7, "val": 3}, sizes=SIZES)

  def open_both(*, batch_size=4, eval_canvas=()):
    opened = {}
    for loader in LOADERS:
      config = configure(root, loader=loader)
      config.train.batch_size = config.eval.batch_size = batch_size
      config.eval.canvas = eval_canvas
      opened[loader] = data.open(config)
    return opened

  return open_both


@pytest.fixture
def opened(both_loaders):
  """Returns the data set of each loader."""
  return both_loaders()


def take(batches, count):
  batches = itertools.islice(batches, count)
  return [{k: np.asarray(v) for k, v in b.items()} for b in batches]


def assert_same(first, second):
  assert len(first) == len(second)
  for a, b in zip(first, second, strict=True):
    assert a.keys() == b.keys() == {"image", "label", "size", "index"}
    for name in a:
      assert a[name].dtype == b[name].dtype
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_loaders_agree_and_resume(opened):
  whole = {k: take(d.train_batches(), 9) for k, d in opened.items()}
  assert_same(whole["tfdata"], whole["resident"])
  for loader, dataset in opened.items():
    resumed = take(dataset.train_batches(start_step=4), 5)
    assert_same(resumed, whole[loader][4:])


def test_order_equals_its_definition(folder, opened):
  """Position p has permutation(fold_in(key(seed), p // n), n)[p % n]."""
  dataset = opened["resident"]
  batches = take(dataset.train_batches(), 4)
  found = np.concatenate([batch["index"] for batch in batches])
  keys = [jax.random.fold_in(jax.random.key(0), e) for e in range(3)]
  root = folder({"train": 7, "val": 3}, sizes=SIZES)
  law = np.concatenate([jax.random.permutation(key, 7) for key in keys])
  np.testing.assert_array_equal(found, law[:16])
  source = sources.find("folder", str(root))
  for batch in batches:
    for row, index in enumerate(batch["index"]):
      image, ids = source.read("train", int(index))
      height, width = batch["size"][row]
      if image.shape[0] <= 16 and image.shape[1] <= 16:
        assert image.shape[:2] == (height, width)
        np.testing.assert_array_equal(
          batch["image"][row, :height, :width], image
        )
        np.testing.assert_array_equal(batch["label"][row, :height, :width], ids)
      assert (batch["label"][row, height:] == 255).all()
      assert (batch["label"][row, :, width:] == 255).all()


@pytest.mark.parametrize("loader", LOADERS)
def test_parts_of_processes_join_to_the_whole(opened, loader):
  dataset = opened[loader]

  def joined(make):
    parts = [make(process_index=i, process_count=2) for i in range(2)]
    return [
      {k: np.concatenate([part[k] for part in step]) for k in step[0]}
      for step in zip(*(take(part, 5) for part in parts), strict=True)
    ]

  whole = take(dataset.train_batches(start_step=1), 5)
  split = joined(lambda **kw: dataset.train_batches(start_step=1, **kw))
  assert_same(whole, split)
  whole = list(dataset.eval_batches("train"))
  parts = [
    list(dataset.eval_batches("train", process_index=i, process_count=2))
    for i in range(2)
  ]
  for batch, *halves in zip(whole, *parts, strict=True):
    index = np.concatenate([half["index"] for half in halves])
    n = len(batch["index"])
    np.testing.assert_array_equal(index[:n], batch["index"])
    assert (index[n:] == -1).all()
    image = np.concatenate([half["image"] for half in halves])
    np.testing.assert_array_equal(image[:n], batch["image"])


def test_evaluation_fills_the_input_with_the_image(folder, opened):
  """Images of one size make a batch; the label stays on the canvas."""
  batches = {k: take(d.eval_batches("train"), 99) for k, d in opened.items()}
  assert_same(*batches.values())
  source = sources.find(
    "folder", str(folder({"train": 7, "val": 3}, sizes=SIZES))
  )
  shapes = [b["image"].shape[1:3] for b in batches["tfdata"]]
  assert shapes == [(13, 16), (16, 16), (7, 9), (16, 5)]
  index = [b["index"].tolist() for b in batches["tfdata"]]
  assert index == [[0, 4], [1, 5], [2, 6], [3]]
  for batch in batches["tfdata"]:
    for row, i in enumerate(batch["index"]):
      image, ids = source.read("train", int(i))
      if image.shape == batch["image"][row].shape:
        np.testing.assert_array_equal(batch["image"][row], image)
        h, w = ids.shape
        np.testing.assert_array_equal(batch["label"][row, :h, :w], ids)
        assert (batch["label"][row, h:] == 255).all()


def test_evaluation_pads_the_batches_of_several_devices(opened):
  examples = opened["resident"]._examples("train")
  batches = EvalBatches(examples, 3, devices=4)
  assert (
    str(batches) == "evaluating 7 images in 4 shapes; each is compiled once"
  )
  found = list(batches)
  assert len(found) == len(batches) == 4
  np.testing.assert_array_equal(found[0]["index"], [0, 4, -1, -1])
  assert found[0]["image"].dtype == np.uint8
  assert (found[0]["label"][2:] == 255).all()
  assert (found[0]["size"][2:] == 0).all()
  # The images are repeated, so that statistics of the batch stay the same.
  np.testing.assert_array_equal(found[0]["image"][2:], found[0]["image"][:2])


def test_batch_larger_than_the_set(both_loaders):
  opened = both_loaders(batch_size=20).values()
  assert_same(*(take(d.train_batches(start_step=2), 2) for d in opened))
  both = [take(d.eval_batches("val"), 9) for d in opened]
  assert_same(*both)


def test_evaluation_canvas(both_loaders):
  opened = both_loaders(eval_canvas=(40, 24)).values()
  both = [take(d.eval_batches("val"), 9) for d in opened]
  assert_same(*both)
  assert both[0][0]["image"].shape == (1, 40, 12, 3)
  assert both[0][0]["label"].shape == (1, 40, 24)
  np.testing.assert_array_equal(both[0][0]["size"][0], [40, 12])  # not shrunk


def test_resuming_computes_no_earlier_batch(opened, monkeypatch):
  asked = []

  def spy(step, n, seed, share):
    asked.append(step)
    return np.zeros(share.size, np.int32)

  monkeypatch.setattr(order, "train_indices", spy)
  take(opened["tfdata"].train_batches(start_step=10**12), 2)
  assert min(asked) == 10**12


def test_sixteen_bit_ids(configure, write, tmp_path):
  for split in ("train", "val"):
    for i in range(2):
      ids = np.arange(400, dtype=np.uint16).reshape(20, 20)
      ids[0, 0] = 65535
      write(tmp_path / f"set/masks/{split}/{i}.png", ids)
      image = np.zeros((20, 20, 3), np.uint8)
      write(tmp_path / f"set/images/{split}/{i}.png", image)
  names = tuple(f"c{i}" for i in range(400))
  both = []
  for loader in LOADERS:
    config = configure(
      tmp_path / "set",
      loader=loader,
      class_names=names,
      ignore_label=65535,
      canvas=(20, 20),
    )
    both.append(take(data.open(config).train_batches(), 1))
  assert_same(*both)
  assert both[0][0]["label"].dtype == np.uint16
  np.testing.assert_array_equal(both[0][0]["label"][0, 1], np.arange(20, 40))
  assert both[0][0]["label"][0, 0, 0] == 65535


@pytest.mark.parametrize("loader", LOADERS)
def test_indivisible_batch(opened, loader):
  dataset = opened[loader]
  with pytest.raises(UserError, match="train.batch_size=4 .* 3, 6"):
    dataset.train_batches(process_count=3)


def test_shapes_from_both_loaders(configure, monkeypatch):
  monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 5, "val": 3})
  both = []
  for loader in LOADERS:
    dataset = data.open(configure(name="shapes", loader=loader))
    assert dataset.class_names == shapes.CLASS_NAMES
    batches = take(dataset.train_batches(), 2)
    both.append(batches + take(dataset.eval_batches("val"), 9))
  assert_same(*both)
  image, label = shapes.draw("val", 2)
  np.testing.assert_array_equal(both[0][-1]["image"][2], image)
  np.testing.assert_array_equal(both[0][-1]["label"][2], label)


def test_tfdata_exits_without_errors(folder, tmp_path):
  """Threads that read ahead print no error when the program ends."""
  program = f"""
from jaxseg import data
from jaxseg.config import with_data
config = with_data("folder")
config.data.update(
  path={str(folder())!r}, canvas=(16, 16), prepared={str(tmp_path / "p")!r}
)
dataset = data.open(config)
batches = dataset.train_batches()
next(batches)
others = iter(dataset.eval_batches("val"))
next(others)
"""
  ended = subprocess.run([sys.executable, "-c", program], capture_output=True)
  assert ended.returncode == 0
  lines = ended.stderr.decode().splitlines()
  [line] = [line for line in lines if not line.startswith("note: ")]
  assert line.startswith("preparing folder once, in ")


def test_resident_needs_no_tensorflow(folder, tmp_path):
  """It works where neither TensorFlow nor ArrayRecord can be imported."""
  program = f"""
import sys
for name in ("tensorflow", "tensorflow_datasets", "array_record"):
  sys.modules[name] = None
from jaxseg import data
from jaxseg.config import with_data
config = with_data("folder")
config.data.update(path={str(folder())!r}, loader="resident", canvas=(16, 16))
dataset = data.open(config)
assert next(dataset.train_batches())["image"].shape == (16, 16, 16, 3)
assert sum(len(b["index"]) for b in dataset.eval_batches("val")) == 3
assert dataset.splits["val"] == 3
"""
  subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_batches_start_no_tuning_thread(opened, monkeypatch):
  """Deleting an iterator may wait up to a minute for tf.data's tuning thread.

  The wait is a race that a test cannot provoke, so this one reads the option.
  """
  from jaxseg.data import pipeline

  streams = []

  class Recorded(pipeline.Batches):
    def __init__(self, dataset, errors):
      streams.append(dataset)
      super().__init__(dataset, errors)

  monkeypatch.setattr(pipeline, "Batches", Recorded)
  opened["tfdata"].train_batches()
  assert streams[0].options().autotune.enabled is False
