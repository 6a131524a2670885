"""Two processes of four devices train and score what one of eight does."""

import json
import socket
import sys

import jax
import numpy as np
import pytest

from jaxseg.runs.checkpoints import Checkpoints

FIELDS = (
  "--config.data.loader=resident",
  "--config.train.steps=3",
  "--config.train.log_every=1",
  "--config.train.eval_every=3",
  # Dropout draws one mask over the global batch, so it is the same, too.
  "--config.model.dropout_rate=0.3",
  "--config.optimizer.learning_rate=0.001",
)


def two(run_process, command, devices=4):
  """Runs a command in two processes; returns what the first one prints."""
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = s.getsockname()[1]
  pair = [
    run_process(
      [
        *command,
        f"--coordinator=localhost:{port}",
        "--num-processes=2",
        f"--process-id={i}",
      ],
      devices=devices,
      start=True,
    )
    for i in range(2)
  ]
  outputs = [process.communicate(timeout=400) for process in pair]
  for process, (out, err) in zip(pair, outputs, strict=True):
    assert process.returncode == 0, out + err
  (out, _), (other_out, other_err) = outputs
  for line in (other_out + other_err).splitlines():
    # Only the first process reports.
    assert line.startswith(("process 1 of 2", "[Gloo]")), other_out + other_err
  return out


def state(workdir):
  checkpoints = Checkpoints(workdir)
  tree = checkpoints.restore_as_saved(3)
  checkpoints.close()
  return dict(jax.tree_util.tree_leaves_with_path(tree))


@pytest.mark.slow
def test_two_processes_equal_one(train_command, run_process, tmp_path):
  one = run_process(train_command(tmp_path / "one", *FIELDS), devices=8)
  assert one.returncode == 0, one.stderr
  out = two(run_process, train_command(tmp_path / "two", *FIELDS))
  assert "mIoU" in out
  a, b = state(tmp_path / "one"), state(tmp_path / "two")
  assert a.keys() == b.keys()
  for path, value in a.items():
    np.testing.assert_allclose(
      value, b[path], atol=1e-5, rtol=1e-5, err_msg=str(path)
    )
  command = [
    *(sys.executable, "-m", "jaxseg", "evaluate", "--json"),
    f"--workdir={tmp_path / 'two'}",
    # Five examples, padded to the devices of both processes.
    "--config.eval.batch_size=3",
  ]
  scores = json.loads(two(run_process, command, devices=2).splitlines()[-1])
  alone = run_process(command)
  assert alone.returncode == 0, alone.stderr
  expected = json.loads(alone.stdout)
  assert scores["confusion"] == expected["confusion"]
  assert scores["miou"] == expected["miou"]
  np.testing.assert_allclose(scores["loss"], expected["loss"], rtol=1e-5)
