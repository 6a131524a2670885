"""What the loop does at each step."""

import json

import pytest

from config_files import CONFIGS, load_module
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.training import loop

TINY = CONFIGS.parent / "tests" / "tiny_pspnet.py"


def test_an_interval_of_zero_is_never():
  assert [step for step in range(1, 8) if loop.is_due(step, 3)] == [3, 6]
  assert not any(loop.is_due(step, 0) for step in range(1, 8))


@pytest.mark.slow
def test_without_intervals_the_last_step_alone_is_written(
  tiny_folder, tmp_path
):
  config = load_module(TINY).get_config("folder")
  config.data.update(path=str(tiny_folder), loader="resident")
  config.train.update(steps=2, batch_size=2, picture_count=0)
  config.train.update(log_every=0, eval_every=0, checkpoint_every=0)
  config.eval.batch_size = 4
  loop.train(config, tmp_path)
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  written = [json.loads(line) for line in lines]
  assert [(v["step"], v["split"]) for v in written] == [
    (2, "train"),
    (2, "val"),
  ]
  assert Checkpoints(tmp_path).steps() == [2]
  assert not (tmp_path / "pictures").exists()
