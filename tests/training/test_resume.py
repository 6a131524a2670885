"""An interrupted run ends with the same bits as an uninterrupted one."""

import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.runs.metrics_log import read_metrics

# Eleven examples and a batch of eight: step 4 ends inside the third epoch.
FIELDS = (
  "--config.train.steps=8",
  "--config.train.log_every=1",
  "--config.train.checkpoint_every=4",
  "--config.train.eval_every=8",
  "--config.optimizer.ema_decay=0.9",
  "--config.augment.brightness=0.2",
)


def final_state(workdir):
  checkpoints = Checkpoints(workdir)
  tree = checkpoints.restore_as_saved(8)
  checkpoints.close()
  return jax.tree_util.tree_leaves_with_path(tree)


def assert_identical(a, b):
  a, b = final_state(a), final_state(b)
  assert len(a) == len(b) > 100
  for (path, x), (other, y) in zip(a, b, strict=True):
    assert path == other
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), path


def losses(workdir):
  lines = [line for line in read_metrics(workdir) if line["split"] == "train"]
  return [(line["step"], line["loss"]) for line in lines]


def wait_for(condition, process, seconds=240):
  deadline = time.monotonic() + seconds
  while not condition():
    if process.poll() is not None or time.monotonic() > deadline:
      process.kill()
      out, err = process.communicate()
      pytest.fail(f"ended too early ({process.returncode}):\n{out}\n{err}")
    time.sleep(0.02)


def logged(workdir, step):
  path = workdir / "metrics.jsonl"
  if not path.exists():
    return False
  lines = path.read_text().splitlines()
  return bool(lines) and json.loads(lines[-1])["step"] >= step


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["tfdata", "resident"])
def test_kill_9_and_again_equals_never_killed(
  train_command, run_process, tmp_path, loader
):
  fields = (*FIELDS, f"--config.data.loader={loader}")
  whole = run_process(train_command(tmp_path / "whole", *fields))
  assert whole.returncode == 0, whole.stderr
  killed = tmp_path / "killed"
  process = run_process(train_command(killed, *fields), start=True)
  # Steps after the checkpoint of step 4 are taken a second time.
  wait_for(lambda: (killed / "checkpoints" / "4").is_dir(), process)
  process.kill()
  process.communicate()
  assert not (killed / "checkpoints" / "8").exists()
  again = run_process(train_command(killed, *fields))
  assert again.returncode == 0, again.stderr
  assert "continuing from the checkpoint of step 4" in again.stdout
  assert_identical(tmp_path / "whole", killed)
  assert losses(tmp_path / "whole") == losses(killed)


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(
  train_command, run_process, tmp_path
):
  whole, damaged = tmp_path / "whole", tmp_path / "damaged"
  fields = (*FIELDS, "--config.data.loader=resident")
  result = run_process(train_command(whole, *fields))
  assert result.returncode == 0, result.stderr
  shutil.copytree(whole, damaged)
  folder = damaged / "checkpoints" / "8" / "default"
  files = [path for path in folder.rglob("*") if path.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  os.truncate(largest, 1000)
  again = run_process(train_command(damaged, *fields))
  assert again.returncode == 0, again.stderr
  found = f"checkpoint 8 is damaged (default/{largest.relative_to(folder)}: tr"
  assert found in again.stderr
  assert "continuing from step 4" in again.stderr
  assert_identical(whole, damaged)
  assert losses(whole) == losses(damaged)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_first(train_command, run_process, tmp_path, number):
  fields = (
    *FIELDS,
    "--config.data.loader=resident",
    "--config.train.steps=100000",
    "--config.train.checkpoint_every=100000",
    "--config.train.eval_every=100000",
  )
  workdir = tmp_path / "stopped"
  process = run_process(train_command(workdir, *fields), start=True)
  wait_for(lambda: logged(workdir, 3), process)
  process.send_signal(number)
  out, err = process.communicate(timeout=120)
  assert process.returncode == 128 + number, err
  checkpoints = Checkpoints(workdir)
  assert checkpoints.latest_step() >= 3
  checkpoints.close()
  assert "the same command continues" in out
  assert "Traceback" not in err
