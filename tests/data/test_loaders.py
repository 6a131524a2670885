"""Both loaders: the same batches, the same order, the same resuming."""

import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxseg import data
from jaxseg.data import order, shapes, sources
from jaxseg.errors import UserError

LOADERS = ("tfdata", "resident")
SIZES = ((20, 24), (16, 16), (7, 9), (40, 12))


@pytest.fixture
def resolved(folder, configure):
  """The same folder, resolved for each loader; 7 train and 3 val examples."""
  root = folder({"train": 7, "val": 3}, sizes=SIZES)
  return {
    loader: data.resolve(configure(root, loader=loader)) for loader in LOADERS
  }


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


def test_loaders_agree_and_resume(resolved):
  whole = {k: take(data.train_batches(c), 9) for k, c in resolved.items()}
  assert_same(whole["tfdata"], whole["resident"])
  for loader, config in resolved.items():
    resumed = take(data.train_batches(config, start_step=4), 5)
    assert_same(resumed, whole[loader][4:])


def test_batches_follow_the_law(resolved):
  """Stream position p is permutation(fold_in(key(seed), p // n), n)[p % n]."""
  config = resolved["resident"]
  batches = take(data.train_batches(config), 4)
  found = np.concatenate([batch["index"] for batch in batches])
  keys = [jax.random.fold_in(jax.random.key(config.seed), e) for e in range(3)]
  law = np.concatenate([jax.random.permutation(key, 7) for key in keys])
  np.testing.assert_array_equal(found, law[:16])
  source = sources.find(config.data)
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
def test_processes_concatenate(resolved, loader):
  config = resolved[loader]

  def joined(make):
    parts = [make(process_index=i, process_count=2) for i in range(2)]
    return [
      {k: np.concatenate([part[k] for part in step]) for k in step[0]}
      for step in zip(*(take(part, 5) for part in parts), strict=True)
    ]

  whole = take(data.train_batches(config, start_step=1), 5)
  split = joined(lambda **kw: data.train_batches(config, start_step=1, **kw))
  assert_same(whole, split)
  whole = take(data.eval_batches(config, "val"), 5)
  assert_same(
    whole, joined(lambda **kw: data.eval_batches(config, "val", **kw))
  )


def test_evaluation_pads_the_last_batch(resolved):
  batches = {
    k: take(data.eval_batches(c, "train"), 99) for k, c in resolved.items()
  }
  assert_same(*batches.values())
  last = batches["resident"][-1]
  np.testing.assert_array_equal(last["index"], [4, 5, 6, -1])
  assert (last["label"][3] == 255).all()
  np.testing.assert_array_equal(last["size"][3], [0, 0])
  mean = np.asarray(resolved["resident"].data.mean)
  assert (last["image"][3] == np.round(mean * 255)).all()


def test_batch_larger_than_the_set(resolved):
  for config in resolved.values():
    config.train.batch_size = config.eval.batch_size = 20
  both = [
    take(data.train_batches(c, start_step=2), 2) for c in resolved.values()
  ]
  assert_same(*both)
  both = [take(data.eval_batches(c, "val"), 9) for c in resolved.values()]
  assert_same(*both)
  assert len(both[0]) == 1


def test_evaluation_canvas(resolved):
  both = []
  for config in resolved.values():
    config.eval.canvas = (40, 24)
    both.append(take(data.eval_batches(data.resolve(config), "val"), 9))
  assert_same(*both)
  assert both[0][0]["image"].shape == (4, 40, 24, 3)
  np.testing.assert_array_equal(both[0][0]["size"][0], [40, 12])  # not shrunk


def test_resuming_reads_nothing_of_the_past(resolved, monkeypatch):
  asked = []

  def spy(step, n, seed, share):
    asked.append(step)
    return np.zeros(share.size, np.int32)

  monkeypatch.setattr(order, "train_indices", spy)
  take(data.train_batches(resolved["tfdata"], start_step=10**12), 2)
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
    both.append(take(data.train_batches(data.resolve(config)), 1))
  assert_same(*both)
  assert both[0][0]["label"].dtype == np.uint16
  np.testing.assert_array_equal(both[0][0]["label"][0, 1], np.arange(20, 40))
  assert both[0][0]["label"][0, 0, 0] == 65535


@pytest.mark.parametrize("loader", LOADERS)
def test_indivisible_batch(resolved, loader):
  config = resolved[loader]
  with pytest.raises(UserError, match="train.batch_size=4 .* 3, 6"):
    data.train_batches(config, process_count=3)
  with pytest.raises(UserError, match="eval.batch_size=4 .* 3, 6"):
    data.eval_batches(config, "val", process_count=3)


def test_shapes_from_both_loaders(configure, monkeypatch):
  monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 5, "val": 3})
  both = []
  for loader in LOADERS:
    config = data.resolve(configure(name="shapes", loader=loader))
    assert config.data.class_names == shapes.CLASS_NAMES
    batches = take(data.train_batches(config), 2)
    both.append(batches + take(data.eval_batches(config, "val"), 9))
  assert_same(*both)
  image, label = shapes.draw("val", 2)
  np.testing.assert_array_equal(both[0][-1]["image"][2], image)
  np.testing.assert_array_equal(both[0][-1]["label"][2], label)


def test_tfdata_ends_in_silence(folder, tmp_path):
  """Threads that still read ahead must not complain when the program ends."""
  program = f"""
from jaxseg import data
from jaxseg.config import with_data
config = with_data("folder")
config.data.update(
  path={str(folder())!r}, canvas=(16, 16), prepared={str(tmp_path / "p")!r}
)
config = data.resolve(config)
batches = data.train_batches(config)
next(batches)
others = data.eval_batches(config, "val")
next(others)
"""
  ended = subprocess.run([sys.executable, "-c", program], capture_output=True)
  assert ended.returncode == 0
  lines = ended.stderr.decode()
  assert lines.startswith("preparing folder once, in ")
  assert "Error" not in lines and "Traceback" not in lines


def test_resident_needs_no_tensorflow(folder, tmp_path):
  """In a process where neither TensorFlow nor ArrayRecord can be imported."""
  program = f"""
import sys
for name in ("tensorflow", "tensorflow_datasets", "array_record"):
  sys.modules[name] = None
from jaxseg import data
from jaxseg.config import with_data
config = with_data("folder")
config.data.update(path={str(folder())!r}, loader="resident", canvas=(16, 16))
config = data.resolve(config)
assert next(data.train_batches(config))["image"].shape == (16, 16, 16, 3)
assert sum(len(b["index"]) for b in data.eval_batches(config, "val")) == 16
assert data.num_examples(config, "val") == 3
"""
  subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
