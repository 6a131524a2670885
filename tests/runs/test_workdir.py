"""config.json, and the configuration that a work directory belongs to."""

import json

import pytest

from jaxseg.config import base
from jaxseg.errors import UserError
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
  assert "optimizer.learning_rate: 0.01 in config.json, 0.5 now" in text
  assert "seed: 0 in config.json, 3 now" in text
  assert "\n" not in text
  assert (tmp_path / "config.json").read_bytes() == before


def test_fields_that_change_no_result_may_differ(tmp_path):
  workdirs.claim(base(), tmp_path)
  other = base()
  other.train.log_every = 1
  other.data.path = "elsewhere"
  other.eval.flip = True
  workdirs.claim(other, tmp_path)


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


def test_a_work_directory_on_an_object_store(bucket):
  workdir = bucket / "runs" / "pspnet"
  with pytest.raises(UserError, match="gs://bucket/.*json: no such file"):
    workdirs.load_config(workdir)
  workdirs.claim(base(), workdir)
  assert workdirs.load_config(workdir).to_dict() == base().to_dict()
  other = base()
  other.seed = 3
  with pytest.raises(UserError, match="gs://bucket/runs/pspnet belongs to"):
    workdirs.claim(other, workdir)


def test_an_object_store_without_access_is_one_line(bucket, monkeypatch):
  def refuse(path):
    raise RuntimeError("401: not logged in")

  monkeypatch.setattr(type(bucket), "exists", refuse)
  for use in (workdirs.load_config, lambda path: workdirs.claim(base(), path)):
    with pytest.raises(UserError, match="cannot be read .401: not logged in"):
      use(bucket / "run")
