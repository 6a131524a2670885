"""Runs that stop, fail or have nothing left to do, with a tiny network."""

import math

import flax.linen as nn
import jax
import numpy as np
import optax
from PIL import Image
import pytest

from jaxseg.config import with_data
from jaxseg.errors import UserError
from jaxseg.layers.norm import BatchNorm
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.runs.metrics_log import read_metrics
from jaxseg.training import final_scores, loop, optimizers, setup


class Colours(nn.Module):
  """Predicts classes from normalised colours."""

  @nn.compact
  def __call__(self, image, *, train):
    x = BatchNorm(name="norm")(image, train=train)
    return {"logits": nn.Dense(3, name="dense")(x)}


@pytest.fixture
def config(tiny_folder, monkeypatch):
  """Four steps of a network with batch statistics and averages."""
  monkeypatch.setattr(setup, "create_model", lambda config: Colours())
  c = with_data("folder")
  c.data.update(path=str(tiny_folder), loader="resident", canvas=(24, 32))
  c.augment.update(crop=(16, 24), brightness=0.2)
  c.optimizer.update(ema_decay=0.9, learning_rate=0.1)
  c.train.update(steps=4, batch_size=8, log_every=1, eval_every=2)
  c.train.update(norm_batches=2, picture_count=1)
  return c


class Stops:
  """Stops a run after steps 2 and 4, where it is evaluated."""

  signal = 15

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    pass

  def should_stop(self, step):
    return step in (2, 4)


def result(workdir):
  """Returns everything that a run left, except for times."""
  checkpoints = Checkpoints(workdir)
  best, saved = checkpoints.best_step(), checkpoints.restore_as_saved(4)
  checkpoints.close()
  lines = list(read_metrics(workdir))
  for line in lines:
    line.pop("images_per_second", None)
  pictures = {
    path.name: path.read_bytes() for path in (workdir / "pictures").iterdir()
  }
  arrays = jax.tree.map(lambda a: np.asarray(a).tobytes(), saved)
  return best, arrays, lines, pictures


def test_a_stop_at_an_evaluation_or_at_the_end_changes_nothing(
  config, tmp_path, monkeypatch, capsys
):
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  scores = loop.train(config, whole)
  out = capsys.readouterr().out
  expected = (
    "opening the data set folder",
    "11 images to train on (train), 5 to evaluate on (val)",
    "creating the initial state",
    "compiling the training step",
    "step 1 of 4: loss ",
    " left",
  )
  places = [out.index(text) for text in expected]
  assert places == sorted(places)

  monkeypatch.setattr(loop, "Interruption", Stops)
  with pytest.raises(SystemExit, match="143"):
    loop.train(config, stopped)
  loop.train(config, stopped)
  assert result(stopped) == result(whole)
  assert len(result(whole)[-1]) == 2  # Pictures of steps 2 and 4.

  # The command with nothing left to do compiles nothing.
  monkeypatch.setattr(loop, "_run", None)
  again = loop.train(config, stopped)
  for key, value in scores.items():
    np.testing.assert_array_equal(again[key], value)
  assert "nothing left to train" in capsys.readouterr().out


def test_scores_are_recorded_for_their_settings(config, tmp_path):
  contents = {"val": {"examples": 5, "names": "00ff"}}
  origin = final_scores.origin(config, contents)
  scores = {"miou": 0.5, "iou/a": math.nan, "confusion": np.eye(3, dtype=int)}
  assert final_scores.read(tmp_path, origin) is None
  final_scores.write(scores, tmp_path, origin)
  np.testing.assert_equal(final_scores.read(tmp_path, origin), scores)
  config.eval.flip = True
  others = [
    final_scores.origin(config, contents),
    {**origin, "step": 5},
    {**origin, "files": {"examples": 5, "names": "1234"}},
  ]
  assert [final_scores.read(tmp_path, other) for other in others] == [None] * 3
  for damage in (b"", b"[]", b'{"of": 1}', b"\xff"):
    (tmp_path / "scores.json").write_bytes(damage)
    assert final_scores.read(tmp_path, origin) is None


def test_events_are_written_before_an_error(config, tmp_path, monkeypatch):
  monkeypatch.setattr(optimizers, "create", lambda *_: optax.sgd(1e38))
  with pytest.raises(UserError, match="expected finite numbers"):
    loop.train(config, tmp_path)
  (events,) = tmp_path.glob("events.*")
  assert b"train/loss" in events.read_bytes()


@pytest.fixture
def ignore_masks(tmp_path):
  """Returns a function that ignores all pixels of a split of a copy."""

  def ignore(root, split):
    copy = tmp_path / "data"
    for path in root.rglob("*.png"):
      image = np.asarray(Image.open(path))
      if path.parent.parts[-2:] == ("masks", split):
        image = np.full_like(image, 255)
      target = copy / path.relative_to(root)
      target.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image).save(target)
    return str(copy)

  return ignore


def test_training_masks_need_pixels(
  config, tiny_folder, tmp_path, ignore_masks
):
  config.data.path = ignore_masks(tiny_folder, "train")
  with pytest.raises(UserError, match="'train' masks.*nothing to learn.*255"):
    loop.train(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_without_scores_no_step_is_the_best(
  config, tiny_folder, tmp_path, ignore_masks, capsys
):
  config.data.path = ignore_masks(tiny_folder, "val")
  scores = loop.train(config, tmp_path / "run")
  assert np.isnan(scores["miou"])
  printed = capsys.readouterr()
  assert "'val' masks is ignored; there will be no scores" in printed.err
  assert "no step has a score" in printed.out
