"""metrics.jsonl continues with training; TensorBoard needs a local disk."""

import os
import sys

import pytest

from jaxseg.errors import UserError
from jaxseg.runs import metrics_log


@pytest.fixture(params=["local", "remote"])
def workdir(request, tmp_path):
  """Returns an empty work directory on a disk or on an object store."""
  if request.param == "local":
    return tmp_path
  return request.getfixturevalue("bucket") / "run"


def test_later_lines_are_dropped_when_training_continues(workdir):
  log = metrics_log.MetricsLog(workdir, resume_step=0)
  for step in (1, 2, 3):
    log.write(step, "train", {"loss": 1.0 / step})
  path = workdir / "metrics.jsonl"
  # A power cut leaves a last line without an end.
  path.write_text(path.read_text() + '{"step": 4, "sp')
  log = metrics_log.MetricsLog(workdir, resume_step=2)
  log.write(2, "train", {"loss": 9.0})
  log.write(3, "train", {"loss": 0.0})
  steps = [(m["step"], m["loss"]) for m in metrics_log.read_metrics(workdir)]
  assert steps == [(1, 1.0), (2, 0.5), (3, 0.0)]


def test_damaged_lines_are_ignored_and_counted(workdir, capsys):
  path = workdir / "metrics.jsonl"
  good = [b'{"step": %d, "split": "train"}\n' % step for step in (1, 2, 3)]
  bad = [b'{"step": 2, "sp\n', b"\xff\xfe\n", b"\0" * 9 + b"\n", b"7\n", b"\n"]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(good[0] + b"".join(bad) + good[1] + b'{"step": "3"}\n')
  log = metrics_log.MetricsLog(workdir, resume_step=2)
  note = capsys.readouterr().err
  assert "metrics.jsonl: ignored 6 damaged of 8 lines (first: line 2)" in note
  log.write(3, "train", {})
  assert path.read_bytes() == b"".join(good)
  assert len(metrics_log.read_metrics(workdir)) == 3
  assert not capsys.readouterr().err


def test_other_processes_write_nothing(workdir):
  log = metrics_log.MetricsLog(workdir, resume_step=0, enabled=False)
  log.write(1, "train", {"loss": 1.0})
  assert not (workdir / "metrics.jsonl").exists()


def test_a_log_that_cannot_be_written_is_one_line(tmp_path):
  log = metrics_log.MetricsLog(tmp_path, resume_step=0)
  (tmp_path / "metrics.jsonl").mkdir()
  with pytest.raises(UserError, match="metrics.jsonl: cannot be written"):
    log.write(1, "train", {"loss": 1.0})


def test_a_log_that_is_a_folder_is_one_line(tmp_path):
  (tmp_path / "metrics.jsonl").mkdir()
  with pytest.raises(UserError, match="metrics.jsonl: cannot be read .Is a"):
    metrics_log.MetricsLog(tmp_path, resume_step=0)


def test_tensorboard_events_are_local(tmp_path, bucket, monkeypatch, capsys):
  # tensorboardX imports torch where it is installed, which takes seconds.
  monkeypatch.setitem(sys.modules, "torch", None)
  monkeypatch.chdir(tmp_path)
  for workdir, written in ((tmp_path / "run", True), (bucket / "run", False)):
    writer = metrics_log.tensorboard_writer(workdir, resume_step=0)
    writer.add_scalar("loss", 1.0, 1)
    writer.close()
    assert ("TensorBoard" in capsys.readouterr().err) != written
  assert os.listdir(tmp_path) == ["run"]
  (event_file,) = os.listdir(tmp_path / "run")
  assert "tfevents" in event_file
  assert not (bucket / "run").exists()
