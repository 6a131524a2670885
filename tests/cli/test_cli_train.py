"""train: what it passes to the loop, its work directory, JSON, train.py."""

import json
import os
from pathlib import Path
import runpy
import sys

import numpy as np
import pytest

from jaxseg import cli
from jaxseg.training import loop

ROOT = Path(__file__).parents[2]
CONFIG = f"--config={ROOT / 'tests' / 'tiny_pspnet.py'}:folder"


@pytest.fixture
def trained(monkeypatch, tmp_path):
  """Replaces training; lists the (config, workdir) that were to be trained."""
  calls = []

  def train(config, workdir):
    calls.append((config.to_dict(), workdir))
    print("training")
    confusion = np.array([[3, 1], [0, 2]])
    return {"miou": 0.5, "iou/cat": float("nan"), "confusion": confusion}

  monkeypatch.setattr(loop, "train", train)
  monkeypatch.chdir(tmp_path)
  return calls


def test_config_words_and_fields_reach_the_loop(trained):
  overrides = ["--config.train.steps=7", "--config.model.bins", "(1, 3)"]
  assert cli.main(["train", "--workdir=w", *overrides, CONFIG]) == 0
  ((config, workdir),) = trained
  assert workdir == "w" and config["data"]["name"] == "folder"
  assert config["train"]["steps"] == 7 and config["model"]["bins"] == (1, 3)


def test_skipping_without_weights_is_refused(trained, capsys, monkeypatch):
  monkeypatch.setattr(os, "_exit", sys.exit)
  word = "--config.init.skip=('head',)"
  with pytest.raises(SystemExit, match="2"):
    cli.main(["train", CONFIG, word])
  assert "add --config.init.model=FILE or" in capsys.readouterr().err
  cli.main(["train", CONFIG, word, "--config.init.backbone=w.npz"])
  cli.main(["train", CONFIG, "--config.init.model="])
  assert len(trained) == 2


def test_default_work_directory_has_name_and_words(trained):
  for words in ("folder", "shapes"):
    argv = ["train", CONFIG.replace(":folder", f":{words}")]
    assert cli.main(argv) == 0
  assert [workdir for _, workdir in trained] == [
    "runs/tiny_pspnet-folder",
    "runs/tiny_pspnet-shapes",
  ]


def test_json_is_the_final_scores_and_nothing_else(trained, capsys):
  argv = ["train", "--workdir=w", "--json", "--config.train.steps=7", CONFIG]
  assert cli.main(argv) == 0
  captured = capsys.readouterr()
  assert captured.out.count("\n") == 1 and "training" in captured.err
  assert json.loads(captured.out, parse_constant=pytest.fail) == {
    "workdir": "w",
    "step": 7,
    "miou": 0.5,
    "iou/cat": None,
    "confusion": [[3, 1], [0, 2]],
  }


def test_train_py_is_jaxseg_train(trained, monkeypatch):
  argv = [CONFIG, "--config.train.steps=7"]
  assert cli.main(["train", *argv]) == 0
  monkeypatch.setattr(sys, "argv", ["train.py", *argv])
  with pytest.raises(SystemExit) as exit_:
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
  assert not exit_.value.code
  assert trained[0] == trained[1]


@pytest.mark.parametrize(
  "argv, expected",
  [
    (["configs/pspnet.py"], "write --config=configs/pspnet.py;"),
    (["configs/pspnet.py:camvid"], "write --config=configs/pspnet.py:camvid;"),
    ([], "for example --config=configs/pspnet.py"),
  ],
)
def test_a_configuration_without_its_option(capsys, argv, expected):
  with pytest.raises(SystemExit):
    cli.main(["train", *argv])
  error = capsys.readouterr().err
  assert error.startswith("error: ") and expected in error
