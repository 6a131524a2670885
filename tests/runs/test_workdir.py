"""The work directory: what it keeps, and whom it belongs to."""

import json

import pytest

from jaxseg.config import base
from jaxseg.errors import UserError
from jaxseg.runs import metrics_log
from jaxseg.runs import workdir as workdirs


def test_a_config_survives_the_round_trip(tmp_path):
  config = base()
  workdirs.save_config(config, tmp_path)
  loaded = workdirs.load_config(tmp_path)
  assert loaded.to_dict() == config.to_dict()
  assert isinstance(loaded.augment.scale, tuple)
  assert loaded.is_locked


def test_another_configuration_is_refused_with_the_differing_fields(tmp_path):
  config = base()
  workdirs.claim(config, tmp_path)
  before = (tmp_path / "config.json").read_bytes()
  other = base()
  other.optimizer.learning_rate = 0.5
  other.seed = 3
  with pytest.raises(UserError) as error:
    workdirs.claim(other, tmp_path)
  text = str(error.value)
  assert "optimizer.learning_rate: 0.01 there, 0.5 now" in text
  assert "seed: 0 there, 3 now" in text
  assert "\n" not in text
  assert (tmp_path / "config.json").read_bytes() == before


def test_fields_that_change_no_result_may_differ(tmp_path):
  workdirs.claim(base(), tmp_path)
  other = base()
  other.train.log_every = 1
  other.data.path = "elsewhere"
  other.eval.flip = True
  workdirs.claim(other, tmp_path)


def test_the_log_drops_what_comes_again(tmp_path):
  log = metrics_log.MetricsLog(tmp_path, resume_step=0)
  for step in (1, 2, 3):
    log.write(step, "train", {"loss": 1.0 / step})
  # A line torn by a power cut is dropped as well.
  with open(tmp_path / "metrics.jsonl", "a") as f:
    f.write('{"step": 4, "sp')
  log = metrics_log.MetricsLog(tmp_path, resume_step=2)
  log.write(3, "train", {"loss": 0.0})
  steps = [(m["step"], m["loss"]) for m in metrics_log.read_metrics(tmp_path)]
  assert steps == [(1, 1.0), (2, 0.5), (3, 0.0)]


def test_a_run_of_an_earlier_version_has_the_defaults(tmp_path):
  config = base()
  with config.unlocked():
    config.model = {"name": "pspnet", "bins": (1,)}
  workdirs.save_config(config, tmp_path)
  path = tmp_path / "config.json"
  tree = json.loads(path.read_text())
  del tree["task"], tree["norm"]["frozen"]
  path.write_text(json.dumps(tree))
  loaded = workdirs.load_config(tmp_path)
  assert loaded.task == "segmentation"
  assert loaded.norm.frozen is False
  assert loaded.model.to_dict() == {"name": "pspnet", "bins": (1,)}


def test_a_missing_or_broken_config_is_one_line(tmp_path):
  with pytest.raises(UserError, match="config.json: no such file"):
    workdirs.load_config(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(UserError, match="not a readable config.json"):
    workdirs.load_config(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "config.json"
  workdirs.write_atomically(path, json.dumps({"old": 1}))

  def full(*args):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr("os.fsync", full)
  with pytest.raises(UserError, match="No space left"):
    workdirs.write_atomically(path, json.dumps({"new": 2}))
  assert json.loads(path.read_text()) == {"old": 1}
  assert list(tmp_path.iterdir()) == [path]
