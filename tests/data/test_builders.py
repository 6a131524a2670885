"""A data set is prepared once, completely or not at all, beside others."""

from concurrent.futures import ThreadPoolExecutor
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxseg import data
from jaxseg.data import builders, examples, manifest
from jaxseg.errors import UserError


def prepared_sets(tmp_path):
  """Returns the prepared sets, without the files of locks."""
  return sorted((tmp_path / "prepared/folder").glob("[!.]*"))


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
  batch = next(iter(dataset.eval_batches("train")))
  assert (batch["image"][0] == 77).all()
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


def first_byte_flipped(path):
  content = bytearray(path.read_bytes())
  content[0] ^= 0xFF
  path.write_bytes(content)


DAMAGES = {
  "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
  "empty": lambda path: os.truncate(path, 0),
  "flipped": first_byte_flipped,
  "deleted": lambda path: path.unlink(),
}


def test_damage_is_found(tmp_path):
  """Any change of any file, the manifest included, is found and named."""
  for damage in DAMAGES.values():
    for name in ("shard", "info.json", "manifest.json"):
      folder = tmp_path / "set"
      (folder / "data").mkdir(parents=True)
      (folder / "data/shard").write_bytes(bytes(range(100)))
      (folder / "data/info.json").write_text("{}")
      assert "manifest.json" in manifest.damage(folder)
      manifest.write(folder)
      assert manifest.damage(folder) == ""
      [path] = folder.rglob(name)
      damage(path)
      assert name in manifest.damage(folder)
      shutil.rmtree(folder)


@pytest.mark.parametrize("text", ["null", "[1]", '{"a": 1}', '{"a": [1]}'])
def test_a_manifest_of_another_structure_is_damage(tmp_path, text):
  (tmp_path / "a").write_text("")
  (tmp_path / "manifest.json").write_text(text)
  assert "manifest.json" in manifest.damage(tmp_path)


@pytest.mark.parametrize("name", ["jaxseg.json", "*train.array_record*"])
def test_a_damaged_set_is_prepared_again(
  folder, configure, tmp_path, capsys, name
):
  config = configure(folder(), loader="tfdata")
  batch = next(data.open(config).train_batches())
  [path] = prepared_sets(tmp_path)
  [file] = path.rglob(name)
  DAMAGES["truncated"](file)
  capsys.readouterr()
  again = next(data.open(config).train_batches())
  err = capsys.readouterr().err
  assert f"note: {path} is damaged (" in err and file.name in err
  np.testing.assert_array_equal(batch["image"], again["image"])
  assert prepared_sets(tmp_path) == [path]


def test_damage_while_reading_names_the_file(folder, configure, tmp_path):
  """A shard that changes after it was opened, or is too large for a check."""
  dataset = data.open(configure(folder(), loader="tfdata"))
  [path] = prepared_sets(tmp_path)
  [shard] = path.rglob("*train.array_record*")
  shard.write_bytes(b"\xff" * shard.stat().st_size)
  with pytest.raises(UserError) as error:
    next(dataset.train_batches())
  line = str(error.value)
  assert "\n" not in line
  assert line.startswith(f"{path}: the prepared split 'train' is damaged")
  assert f"{shard.name} has changed" in line and "delete this folder" in line


def test_one_of_several_processes_prepares(
  folder, configure, tmp_path, monkeypatch, capsys
):
  """The others wait and use its set; threads lock one another out as well."""
  config = configure(folder(), loader="tfdata")
  build, built, second = builders._build, [], []

  def slow(*args):
    built.append(args)
    second.append(pool.submit(data.open, config))
    while "waiting for another process" not in capsys.readouterr().err:
      time.sleep(0.01)
    build(*args)

  monkeypatch.setattr(builders, "_build", slow)
  with ThreadPoolExecutor() as pool:
    data.open(config)
    assert second[0].result().splits == {"train": 5, "val": 3}
  assert len(built) == len(prepared_sets(tmp_path)) == 1
  assert not list((tmp_path / "prepared/folder").glob(".*"))


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
