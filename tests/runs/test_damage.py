"""Damaged checkpoints: each is recognised, and the one before it is used."""

from pathlib import Path
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import UserError
from jaxseg.runs import checksums
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.training.state import TrainState


def state(step):
  # Random numbers cannot be compressed, so that a file holds their bytes.
  w = jax.random.normal(jax.random.key(step), (64, 64))
  return TrainState(
    step=jnp.int32(step),
    params={"w": w},
    batch_stats={},
    opt_state=(),
    ema=None,
  )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """Returns a work directory with the checkpoints 4 and 8; 8 is the best."""
  workdir = tmp_path_factory.mktemp("saved")
  checkpoints = Checkpoints(workdir, keep_last=2)
  checkpoints.save(state(4), {"miou": 0.2})
  checkpoints.save(state(8), {"miou": 0.3})
  checkpoints.close()
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  return Path(shutil.copytree(saved, tmp_path / "run"))


def largest(folder):
  paths = [path for path in folder.rglob("*") if path.is_file()]
  return max(paths, key=lambda path: path.stat().st_size)


def truncate(folder):
  path = largest(folder)
  path.write_bytes(path.read_bytes()[:1000])


def flip_byte(folder):
  path = largest(folder)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 16
  path.write_bytes(content)


def empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


DAMAGES = {
  "truncated": (truncate, "truncated, 1000 of"),
  "deleted": (lambda folder: largest(folder).unlink(), "missing"),
  "flipped": (flip_byte, "changed since it was written"),
  "no_default": (lambda f: shutil.rmtree(f / "default"), "default: missing"),
  "empty": (empty, "default: missing"),
  "no_metadata": (
    lambda folder: (folder / "default" / "_METADATA").unlink(),
    "default/_METADATA: missing",
  ),
  "torn_checksums": (
    lambda folder: (folder / "default" / checksums.NAME).write_text('{"d'),
    "checksums.json: not a table",
  ),
  "other_checksums": (
    lambda folder: (folder / "default" / checksums.NAME).write_text("[3]"),
    "checksums.json: not a table",
  ),
  "other_score": (
    lambda folder: (folder / "metrics" / "metrics").write_text("[3]"),
    "metrics/metrics: not a score",
  ),
  "torn_score": (
    lambda folder: (folder / "metrics" / "metrics").write_text('{"mi'),
    "metrics/metrics: not a score",
  ),
  "binary_score": (
    lambda folder: (folder / "metrics" / "metrics").write_bytes(b"\xff\xfe{"),
    "metrics/metrics: not a score",
  ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_used(workdir, name, capsys):
  damage, found = DAMAGES[name]
  damage(workdir / "checkpoints" / "8")
  checkpoints = Checkpoints(workdir, keep_last=2)
  assert [checkpoints.is_intact(s) for s in (4, 8, 12)] == [True, False, False]
  with pytest.raises(UserError, match="checkpoint 8 is damaged") as error:
    checkpoints.restore_as_saved(8)
  assert found in str(error.value) and "\n" not in str(error.value)

  for steps in (checkpoints.ranked_steps(), [8, 4]):
    step, tree = checkpoints.restore_first(steps)
    assert step == 4
    np.testing.assert_array_equal(tree["params"]["w"], state(4).params["w"])
    line = capsys.readouterr().err
    assert line.startswith("note: checkpoint 8 is damaged (")
    assert line.endswith("); using step 4\n") and found in line
  assert checkpoints.steps() == [4, 8]

  restored = checkpoints.restore(state(0))
  np.testing.assert_array_equal(restored.params["w"], state(4).params["w"])
  assert "continuing from step 4" in capsys.readouterr().err
  assert checkpoints.steps() == [4]


def test_the_step_of_a_damaged_checkpoint_is_saved_again(workdir):
  truncate(workdir / "checkpoints" / "8")
  checkpoints = Checkpoints(workdir, keep_last=2)
  checkpoints.restore(state(0))
  checkpoints.save(state(8), {"miou": 0.1})
  checkpoints.close()
  assert checkpoints.steps() == [4, 8] and checkpoints.best_step() == 4
  tree = checkpoints.restore_as_saved(8)
  np.testing.assert_array_equal(tree["params"]["w"], state(8).params["w"])


def test_the_remains_of_a_killed_save_are_ignored_and_replaced(workdir):
  folder = workdir / "checkpoints"
  remains = folder / "9.orbax-checkpoint-tmp"
  shutil.copytree(folder / "8", remains)
  truncate(remains)
  checkpoints = Checkpoints(workdir, keep_last=2)
  assert checkpoints.steps() == [4, 8]
  checkpoints.save(state(9))
  checkpoints.close()
  assert not remains.exists()
  tree = checkpoints.restore_as_saved(9)
  np.testing.assert_array_equal(tree["params"]["w"], state(9).params["w"])


def test_a_damaged_score_of_an_older_checkpoint_stops_nothing(workdir):
  DAMAGES["torn_score"][0](workdir / "checkpoints" / "4")
  checkpoints = Checkpoints(workdir, keep_last=2)
  assert int(checkpoints.restore(state(0)).step) == 8
  checkpoints.save(state(9))
  checkpoints.close()
  assert checkpoints.steps() == [8, 9]


def test_nothing_intact_is_one_line_and_deletes_nothing(workdir):
  for step in (4, 8):
    truncate(workdir / "checkpoints" / str(step))
  checkpoints = Checkpoints(workdir)
  with pytest.raises(UserError, match="no checkpoint is intact") as error:
    checkpoints.restore(state(0))
  assert "\n" not in str(error.value)
  assert str(error.value).count("truncated, 1000 of") == 2
  assert checkpoints.steps() == [4, 8]


@pytest.mark.parametrize("name", ["truncated", "deleted", "no_metadata"])
def test_checkpoints_without_checksums(workdir, name, capsys):
  """Earlier versions of jaxseg wrote none."""
  for path in workdir.rglob(checksums.NAME):
    path.unlink()
  checkpoints = Checkpoints(workdir)
  assert int(checkpoints.restore(state(0)).step) == 8
  DAMAGES[name][0](workdir / "checkpoints" / "8")
  assert checkpoints.restore_first([8, 4])[0] == 4
  assert int(checkpoints.restore(state(0)).step) == 4
  notes = capsys.readouterr().err.splitlines()
  assert len(notes) == 2
  assert all("checkpoint 8 is damaged" in note for note in notes)


def test_another_train_state_is_one_line(workdir):
  like = state(0).replace(ema={"w": jnp.zeros((64, 64))})
  with pytest.raises(UserError, match="holds another train state") as error:
    Checkpoints(workdir).restore(like)
  assert "\n" not in str(error.value)


def test_an_undefined_score_is_never_the_best(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep_last=3)
  for step, score in ((1, 0.1), (2, float("nan")), (3, 0.1)):
    checkpoints.save(state(step), {"miou": score})
  checkpoints.close()
  assert checkpoints.best_step() == 3
  assert checkpoints.ranked_steps() == [3, 1, 2]
  # Earlier versions saved the score.
  (tmp_path / "checkpoints" / "2" / "metrics").mkdir()
  path = tmp_path / "checkpoints" / "2" / "metrics" / "metrics"
  path.write_text('{"miou": NaN}')
  assert checkpoints.best_step() == 3
  assert checkpoints.ranked_steps()[0] == 3
