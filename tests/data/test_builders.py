"""A data set is prepared once, completely or not at all, beside others."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxseg import data
from jaxseg.data import builders, examples
from jaxseg.errors import UserError


def prepared_sets(tmp_path):
  return sorted((tmp_path / "prepared/folder").iterdir())


def contents(path):
  return {
    p.relative_to(path): (p.stat().st_mtime_ns, p.read_bytes())
    for p in sorted(path.rglob("*"))
    if p.is_file()
  }


def test_prepared_once(folder, configure, tmp_path, monkeypatch):
  config = configure(folder(), loader="tfdata")
  data.open(config)
  [path] = prepared_sets(tmp_path)
  before = contents(path)

  def fail(*args, **kwargs):
    raise AssertionError("prepared again")

  monkeypatch.setattr(builders, "_build", fail)
  monkeypatch.setattr(builders.audit, "count_ids", fail)
  batch = next(data.open(config).train_batches())
  assert batch["image"].shape == (4, 16, 16, 3)
  assert contents(path) == before


def test_metadata(folder, configure, tmp_path):
  dataset = data.open(configure(folder(), loader="tfdata"))
  [path] = prepared_sets(tmp_path)
  made = json.loads((path / "jaxseg.json").read_text())
  assert made["files"]["val"][0] == "images/val/n05.png"
  assert made["placement"]["canvas"] == [16, 16]
  pixels = [made["counts"]["val"][str(i)]["pixels"] for i in (0, 1, 2, 255)]
  assert sum(pixels) == 3 * 20 * 24 and pixels[3] == 3
  np.testing.assert_array_equal(dataset.class_pixels("val"), pixels[:3])


def test_other_settings_or_files_have_a_set_of_their_own(
  folder, configure, tmp_path, write
):
  root = folder()
  data.open(configure(root, loader="tfdata"))
  [first] = prepared_sets(tmp_path)
  before = contents(first)
  variants = [
    {"canvas": (8, 16)},
    {"label_map": "{2: 1}"},
    {"ignore_label": 200, "label_map": "{255: 200}"},
    {"mean": (0.5, 0.5, 0.5)},
  ]
  for fields in variants:
    data.open(configure(root, loader="tfdata", **fields))
  assert len(prepared_sets(tmp_path)) == 1 + len(variants)
  image = np.full((20, 24, 3), 77, np.uint8)
  write(root / "images/train/n00.png", image)
  dataset = data.open(configure(root, loader="tfdata"))
  assert len(prepared_sets(tmp_path)) == 2 + len(variants)
  batch = next(dataset.eval_batches("train"))
  assert (batch["image"][0, :13, :16] == 77).all()
  assert contents(first) == before


class Interrupted(BaseException):
  """Replaces KeyboardInterrupt, which would stop pytest itself."""


@pytest.mark.parametrize("error", [Interrupted(), RuntimeError("broken")])
def test_interrupted_preparation(
  folder, configure, tmp_path, monkeypatch, error
):
  root = folder()
  data.open(configure(root, loader="tfdata"))
  [first] = prepared_sets(tmp_path)
  before = contents(first)
  whole = examples.generate

  def broken(*args):
    made = whole(*args)
    yield next(made)
    raise error

  monkeypatch.setattr(examples, "generate", broken)
  config = configure(root, loader="tfdata", canvas=(8, 8))
  with pytest.raises(type(error)):
    data.open(config)
  assert prepared_sets(tmp_path) == [first]
  assert contents(first) == before
  monkeypatch.setattr(examples, "generate", whole)
  data.open(config)
  assert len(prepared_sets(tmp_path)) == 2


def test_killed_preparation(folder, configure, tmp_path):
  """After kill -9, the next run deletes the remains and prepares again."""
  root = folder()
  config = configure(root, loader="tfdata")
  program = f"""
import os, signal
from jaxseg import data
from jaxseg.config import with_data
from jaxseg.data import examples
def die(*args):
  os.kill(os.getpid(), signal.SIGKILL)
  yield
examples.generate = die
config = with_data("folder")
config.data.update(
  path={str(root)!r}, canvas=(16, 16), prepared={config.data.prepared!r}
)
data.open(config)
"""
  died = subprocess.run([sys.executable, "-c", program], capture_output=True)
  assert died.returncode == -signal.SIGKILL, died.stderr.decode()
  [remains] = prepared_sets(tmp_path)
  assert not (remains / "jaxseg.json").exists()
  dataset = data.open(config)
  [path] = prepared_sets(tmp_path)
  assert path != remains and (path / "jaxseg.json").is_file()
  assert next(dataset.train_batches())["image"].shape == (4, 16, 16, 3)


def test_half_deleted_set_is_prepared_again(folder, configure, tmp_path):
  config = configure(folder(), loader="tfdata")
  data.open(config)
  [path] = prepared_sets(tmp_path)
  (path / "jaxseg.json").unlink()
  data.open(config)
  assert (path / "jaxseg.json").is_file()


def test_two_processes_may_prepare_at_once(
  folder, configure, tmp_path, monkeypatch
):
  """The slower process uses the set that the faster one has prepared."""
  config = configure(folder(), loader="tfdata")
  publish = builders._publish

  def slower(partial, final):
    monkeypatch.setattr(builders, "_publish", publish)
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)
    data.open(config)
    publish(partial, final)

  monkeypatch.setattr(builders, "_publish", slower)
  data.open(config)
  assert len(prepared_sets(tmp_path)) == 1


def test_full_disk(folder, configure, tmp_path, monkeypatch):
  def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")
    yield

  monkeypatch.setattr(examples, "generate", full)
  config = configure(folder(), loader="tfdata")
  with pytest.raises(UserError, match="No space left .*data.prepared="):
    data.open(config)
  assert prepared_sets(tmp_path) == []


def test_unwritable_folder(folder, configure, tmp_path):
  config = configure(folder(), loader="tfdata")
  (tmp_path / "file").write_text("")
  config.data.prepared = str(tmp_path / "file")
  with pytest.raises(UserError, match="cannot write .*Not a directory"):
    data.open(config)


def test_tensorflow_sees_no_accelerator():
  import tensorflow as tf

  for kind in ("GPU", "TPU"):
    assert tf.config.get_visible_devices(kind) == []
