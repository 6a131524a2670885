"""Files are whole or absent, and a failing disk is one line."""

import errno
import os

import pytest

from jaxseg import files
from jaxseg.errors import UserError


def full(*args):
  raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_appears_when_it_is_complete(tmp_path):
  path = tmp_path / "new" / "folder" / "a.bin"
  with files.atomic_write(path) as file:
    file.write(b"first")
    assert not path.exists()
  assert path.read_bytes() == b"first"
  files.write_text(path, "größer\n")
  assert path.read_text(encoding="utf-8") == "größer\n"
  assert os.listdir(path.parent) == ["a.bin"]


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, call):
  path = tmp_path / "a.txt"
  files.write_text(path, "old")
  monkeypatch.setattr(call, full)
  with pytest.raises(UserError) as error:
    files.write_text(path, "new")
  line = str(error.value)
  assert line.startswith(f"{path}: cannot be written (No space left on device")
  assert "MB free); free some space" in line and "\n" not in line
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_of_the_block_passes_and_leaves_the_old_file(tmp_path):
  path = tmp_path / "a.txt"
  files.write_text(path, "old")
  with pytest.raises(ValueError, match="not of the disk"):
    with files.atomic_write(path) as file:
      file.write(b"new")
      raise ValueError("not of the disk")
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["a.txt"]


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="file/a: cannot be written .File exists"):
    files.write_text(tmp_path / "file" / "a", "")


@pytest.mark.parametrize(
  "error, free, reason",
  [
    # Libraries keep the text of the refusal, or nothing of it.
    (ValueError("RESOURCE_EXHAUSTED: disk\nmore"), 2**30, "disk; 1024 MB free"),
    (RuntimeError("closed"), 2**20, "No space left on device; 1 MB free"),
    (RuntimeError("closed"), 2**30, None),
    (PermissionError(errno.EACCES, "denied"), 2**30, "denied; 1024 MB free"),
    (UserError("a line of its own"), 0, None),
  ],
)
def test_only_refusals_of_the_disk_are_explained(
  tmp_path, monkeypatch, error, free, reason
):
  monkeypatch.setattr(files, "free_bytes", lambda path: free)
  with pytest.raises(Exception) as raised:
    with files.disk_errors(tmp_path, "cannot write", advice="do that"):
      raise error
  if reason is None:
    assert raised.value is error
  else:
    assert isinstance(raised.value, UserError)
    assert raised.value.__cause__ is error
    assert str(raised.value).startswith(f"{tmp_path}: cannot write (")
    assert str(raised.value).endswith(f"{reason}); do that")


def test_space_is_checked_before_writing(tmp_path):
  missing = tmp_path / "not" / "yet"
  files.check_space(missing, 1, "cannot write")
  with pytest.raises(UserError, match="No space left .* MB needed, .* MB free"):
    files.check_space(missing, 2**60, "cannot write")
  files.check_space("gs://bucket/run", 2**60, "cannot write")


def test_kinds_of_paths():
  assert os.fspath(files.to_path("~/run")) == os.path.expanduser("~/run")
  assert str(files.to_path("gs://bucket/run") / "a") == "gs://bucket/run/a"
  assert files.is_remote(files.to_path("gs://bucket/run"))
  assert not files.is_remote("runs/pspnet")
  with pytest.raises(UserError, match="ftp://host/run: unknown kind .*gs://"):
    files.to_path("ftp://host/run")


def test_an_object_is_whole_or_absent(bucket):
  path = bucket / "run" / "a.txt"
  files.write_text(path, "old")
  assert path.read_text() == "old"
  with pytest.raises(ValueError):
    with files.atomic_write(path) as file:
      file.write(b"new")
      raise ValueError
  assert path.read_text() == "old"


def test_a_refusal_of_the_object_store_is_one_line(bucket, monkeypatch):
  def refuse(*args, **kwargs):
    raise RuntimeError("403: no access to this bucket\nand its traceback")

  monkeypatch.setattr(type(bucket), "write_bytes", refuse)
  with pytest.raises(UserError, match="no access to this bucket") as error:
    files.write_text(bucket / "a", "")
  assert "\n" not in str(error.value)
