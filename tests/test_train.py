"""train.py as a process: bad input is reported in one line, with status 2."""

import os
import subprocess

import pytest

from jaxseg.runs.checkpoints import Checkpoints

SHORT = (
  "--config.data.loader=resident",
  "--config.train.steps=2",
  "--config.train.log_every=1",
)


def refused(result, *expected):
  """Checks that stderr has one error line, with these texts."""
  assert result.returncode == 2, result.stdout + result.stderr
  assert "Traceback" not in result.stderr
  errors = [
    line for line in result.stderr.splitlines() if line.startswith("error: ")
  ]
  assert len(errors) == 1, result.stderr
  for text in expected:
    assert text in errors[0]


@pytest.mark.parametrize(
  "overrides,expected",
  [
    (["--config.train.step=3"], ["did you mean 'steps'", "batch_size"]),
    (["--config.train.steps=many"], ["config.train.steps", "many"]),
    (["--config.data.path=/nowhere"], ["/nowhere"]),
    (["--config.data.loader=tfdate"], ["did you mean 'tfdata'"]),
    (["--config.model.backbone.name=resnet34"], ["by a word", ",resnet34"]),
    (["--config.optimizer.name=sdg"], ["did you mean 'sgd'"]),
    (["surplus"], ["unexpected argument 'surplus'"]),
  ],
  ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_bad_fields(train_command, run_process, tmp_path, overrides, expected):
  command = train_command(tmp_path / "run", *SHORT, *overrides)
  refused(run_process(command), *expected)


def test_a_missing_config_file(train_command, run_process, tmp_path):
  command = train_command(tmp_path / "run", config="configs/pspnot.py")
  refused(run_process(command), "configs/pspnot.py")
  refused(
    run_process([c for c in command if not c.startswith("--config")]),
    "--config",
  )


def test_a_run_refuses_another_configuration(
  train_command, run_process, tmp_path
):
  workdir = tmp_path / "run"
  result = run_process(train_command(workdir, *SHORT))
  assert result.returncode == 0, result.stderr
  assert "mIoU" in result.stdout
  picture = result.stdout.strip().splitlines()[-1].removeprefix("picture: ")
  assert os.path.getsize(picture) > 1000
  assert (workdir / "config.json").exists()
  # The same command has nothing left to train and prints the same scores.
  again = run_process(train_command(workdir, *SHORT))
  assert again.returncode == 0, again.stderr
  assert again.stdout.splitlines()[-4:] == result.stdout.splitlines()[-4:]
  other = train_command(workdir, *SHORT, "--config.optimizer.learning_rate=0.5")
  refused(
    run_process(other),
    "belongs to another configuration",
    "optimizer.learning_rate: 0.01 in config.json, 0.5 now",
  )


@pytest.mark.slow
def test_a_run_starts_from_another(train_command, run_process, tmp_path):
  first, second = tmp_path / "first", tmp_path / "second"
  result = run_process(train_command(first, *SHORT))
  assert result.returncode == 0, result.stderr
  command = train_command(
    second,
    *SHORT,
    f"--config.init.model={first}",
    "--config.init.skip=('head/classifier',)",
    "--config.optimizer.ema_decay=0.9",
  )
  result = run_process(command)
  assert result.returncode == 0, result.stderr
  assert "loaded" in result.stdout + result.stderr


@pytest.mark.slow
def test_a_loss_that_is_not_finite(train_command, run_process, tmp_path):
  command = train_command(
    tmp_path / "run",
    *SHORT,
    "--config.train.steps=50",
    "--config.optimizer.learning_rate=1e6",
  )
  refused(run_process(command), "step ", "nan", ".png", "learning_rate")
  # The state with the infinite loss was not saved.
  checkpoints = Checkpoints(tmp_path / "run")
  assert checkpoints.latest_step() is None
  checkpoints.close()


@pytest.fixture
def small_disk(tmp_path):
  """Mounts a file system of 6 MB; skips the test without permission."""
  disk = tmp_path / "disk"
  disk.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
  if (
    os.name != "posix" or subprocess.run(mount, capture_output=True).returncode
  ):
    pytest.skip("no permission to mount a small file system")
  yield disk
  subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_loses_no_earlier_checkpoint(
  train_command, run_process, small_disk
):
  workdir = small_disk / "run"
  fields = (
    *SHORT,
    "--config.train.keep_last=100",
    "--config.train.checkpoint_every=1",
    "--config.train.eval_every=100",
    "--config.train.steps=100",
  )
  result = run_process(train_command(workdir, *fields))
  refused(result, str(workdir), "space")
  checkpoints = Checkpoints(workdir)
  kept = checkpoints.steps()
  assert kept
  assert checkpoints.restore_as_saved(kept[-1])["params"]
  checkpoints.close()
