"""Two processes of four devices each train what one of eight trains."""

import socket

import jax
import numpy as np
import pytest

from jaxseg.runs.checkpoints import Checkpoints

FIELDS = (
  "--config.train.steps=3",
  "--config.train.log_every=1",
  "--config.train.eval_every=3",
  # Dropout draws one mask over the global batch, so it is the same, too.
  "--config.model.dropout_rate=0.3",
  "--config.optimizer.learning_rate=0.001",
)


def state(workdir):
  checkpoints = Checkpoints(workdir)
  tree = checkpoints.restore_as_saved(3)
  checkpoints.close()
  return dict(jax.tree_util.tree_leaves_with_path(tree))


@pytest.mark.slow
def test_two_processes_equal_one(train_command, run_process, tmp_path):
  one = run_process(train_command(tmp_path / "one", *FIELDS), devices=8)
  assert one.returncode == 0, one.stderr
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = s.getsockname()[1]
  processes = [
    run_process(
      [
        *train_command(tmp_path / "two", *FIELDS),
        f"--coordinator=localhost:{port}",
        "--num-processes=2",
        f"--process-id={i}",
      ],
      devices=4,
      start=True,
    )
    for i in range(2)
  ]
  outputs = [process.communicate(timeout=400) for process in processes]
  for process, (out, err) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, out + err
  # Only the first process reports.
  assert "mIoU" in outputs[0][0]
  assert "mIoU" not in outputs[1][0]
  a, b = state(tmp_path / "one"), state(tmp_path / "two")
  assert a.keys() == b.keys()
  for path, value in a.items():
    np.testing.assert_allclose(
      value, b[path], atol=1e-5, rtol=1e-5, err_msg=str(path)
    )
