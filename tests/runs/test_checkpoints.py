"""Checkpoints: which are kept, where they are, and errors of the disk."""

import os
import sys

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxseg import files
from jaxseg.errors import UserError
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.runs.run import saved_variables
from jaxseg.training.state import TrainState


def state(step):
  return TrainState(
    step=jnp.int32(step),
    params={"w": jnp.full(4, float(step))},
    batch_stats={},
    opt_state=(),
    ema=None,
  )


def test_the_last_and_the_best_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep_last=2, metric="accuracy")
  assert checkpoints.latest_step() is None
  for step, accuracy in ((1, 0.2), (2, 0.9), (3, 0.5)):
    checkpoints.save(state(step), {"accuracy": accuracy, "miou": -accuracy})
  checkpoints.save(state(4))
  checkpoints.save(state(5))
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path, keep_last=2, metric="accuracy")
  assert checkpoints.steps() == [2, 4, 5]
  assert (checkpoints.best_step(), checkpoints.latest_step()) == (2, 5)
  restored = checkpoints.restore(state(0))
  np.testing.assert_array_equal(restored.params["w"], np.full(4, 5.0))
  tree = checkpoints.restore_as_saved(2)
  np.testing.assert_array_equal(tree["params"]["w"], np.full(4, 2.0))
  checkpoints.close()


def test_nothing_is_saved_on_a_disk_without_space(tmp_path, monkeypatch):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state(1))
  checkpoints.wait()
  monkeypatch.setattr(files, "free_bytes", lambda path: 2**19)
  with pytest.raises(UserError) as error:
    checkpoints.save(state(2))
  line = str(error.value)
  assert line.startswith(f"{tmp_path}/checkpoints: cannot write a checkpoint")
  assert "1.0 MB needed, 0.5 MB free" in line and "run the same command" in line
  assert checkpoints.steps() == [1]
  checkpoints.close()


def test_orbax_gets_absolute_paths_and_urls(tmp_path, bucket, monkeypatch):
  seen = []

  def manager(directory, **kwargs):
    seen.append(directory)
    raise OSError("the disk is not there")

  monkeypatch.setattr(ocp, "CheckpointManager", manager)
  monkeypatch.setattr(files, "free_bytes", lambda path: None)
  for name in ("google.cloud", "google.cloud.storage"):
    monkeypatch.setitem(sys.modules, name, sys)
  monkeypatch.chdir(tmp_path)
  for workdir in ("run", bucket / "run", "gs://bucket/run"):
    with pytest.raises(UserError, match="cannot write a checkpoint .the disk"):
      Checkpoints(workdir).save(state(1))
  local, *remote = map(os.fspath, seen)
  assert local == f"{tmp_path}/run/checkpoints"
  assert remote == ["gs://bucket/run/checkpoints"] * 2


def test_a_missing_package_for_object_stores_is_named(bucket, monkeypatch):
  monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
  with pytest.raises(UserError, match="pip install 'jaxseg.gcs.'"):
    Checkpoints(bucket / "run")


def test_averages_are_evaluated_with_averaged_statistics():
  raw = {"params": {"w": 1}, "batch_stats": {"mean": 2}}
  averages = {"params": {"w": 3}, "batch_stats": {"mean": 4}}
  assert saved_variables({**raw, "ema": None}) == raw
  assert saved_variables({**raw, "ema": averages}) == averages
  # Networks without norms have no statistics.
  bare = {"params": {"w": 1}, "ema": {"params": {"w": 3}}}
  assert saved_variables(bare) == {"params": {"w": 3}, "batch_stats": {}}
  # Version 0.1 averaged the parameters alone.
  assert saved_variables({**raw, "ema": {"w": 3}}) == {
    "params": {"w": 3},
    "batch_stats": {"mean": 2},
  }
