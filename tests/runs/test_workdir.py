"""config.json, and the configuration that a work directory belongs to."""

import json
import os
from pathlib import Path
import shutil

import pytest

from jaxseg.config import base
from jaxseg.data import contents, sources
from jaxseg.errors import UserError
from jaxseg.runs import checksums, lock
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


DAMAGED_CONFIGS = {
  "binary": (b"\xb9\xff{", "not JSON"),
  "torn": (b'{"seed": 1', "not JSON"),
  "list": (b"[1, 2]", "the file is no JSON object"),
  "section": (b'{"model": {}, "data": "x"}', "'data' is no JSON object"),
  "inner": (
    b'{"model": {}, "data": {}, "loss": {"heads": [1]}}',
    "the section 'loss.heads' is no JSON object",
  ),
  "no_name": (b'{"model": {}, "data": {}}', "model.name is missing"),
  "no_model": (b'{"data": {}}', "the section 'model' is missing"),
}


@pytest.mark.parametrize("name", DAMAGED_CONFIGS)
def test_a_damaged_config_is_one_line(tmp_path, name):
  content, found = DAMAGED_CONFIGS[name]
  (tmp_path / "config.json").write_bytes(content)
  for use in (workdirs.load_config, lambda path: workdirs.claim(base(), path)):
    with pytest.raises(UserError, match="not a readable config.json") as error:
      use(tmp_path)
    assert found in str(error.value) and "\n" not in str(error.value)
  assert (tmp_path / "config.json").read_bytes() == content


def test_checkpoints_without_a_configuration_are_not_continued(tmp_path):
  (tmp_path / "checkpoints" / "12").mkdir(parents=True)
  with pytest.raises(UserError, match=r"steps \[12\]. but no config.json"):
    workdirs.claim(base(), tmp_path)
  assert not (tmp_path / "config.json").exists()


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "checkpoints").write_text("")
  for path, found in (
    ("file", "file is a file"),
    ("file/below", "file is a file"),
    ("run", "run/checkpoints is a file"),
  ):
    with pytest.raises(UserError, match=found):
      workdirs.claim(base(), tmp_path / path)
  with pytest.raises(UserError, match="file is a file"):
    with lock.locked(tmp_path / "file" / "below"):
      pass


def test_nan_equals_itself(tmp_path):
  config = base()
  config.optimizer.learning_rate = float("nan")
  workdirs.claim(config, tmp_path)
  workdirs.claim(config, tmp_path)
  with pytest.raises(UserError, match="learning_rate: nan in config.json, 0.0"):
    workdirs.claim(base(), tmp_path)


def test_a_relative_data_path_is_saved_as_an_absolute_one(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  for given, saved in (("good", f"{tmp_path}/good"), ("/x", "/x"), ("", "")):
    config = base()
    config.data.path = given
    workdirs.claim(config, tmp_path)
    assert workdirs.load_config(tmp_path).data.path == saved
    assert config.data.path == given


def test_two_runs_cannot_share_a_work_directory(tmp_path):
  with lock.locked(tmp_path / "run"):
    with pytest.raises(UserError, match=f"process {os.getpid()} on .* trains"):
      with lock.locked(tmp_path / "run"):
        pytest.fail("locked twice")
  with pytest.raises(KeyError):
    with lock.locked(tmp_path / "run"):
      raise KeyError
  with lock.locked(tmp_path / "run"):
    pass


def test_an_object_store_has_checksums_and_no_lock(bucket):
  folder = bucket / "run" / "default"
  (folder / "d" / "x").write_bytes(b"abc")
  (folder / "y").write_bytes(b"12345")
  checksums.write(folder)
  assert checksums.find_damage(folder) is None
  (folder / "d" / "x").write_bytes(b"abd")
  assert checksums.find_damage(folder) == "d/x: changed since it was written"
  with lock.locked(bucket / "run"):
    pass
  assert not (bucket / "run" / ".lock").exists()


def test_changed_data_is_refused(tiny_folder, tmp_path, capsys):
  root = Path(shutil.copytree(tiny_folder, tmp_path / "data"))
  run, splits = tmp_path / "run", ("train", "val")

  def claim(folder=root, splits=splits):
    found = contents.describe(sources.find("folder", str(folder)))
    workdirs.claim_data(found, splits, run)

  def refuse(what):
    with pytest.raises(UserError, match=what) as error:
      claim()
    assert f"delete {run}/data.json" in str(error.value)
    claim(splits=())  # No split that this run uses changed.

  claim()
  # Neither the place of the folder nor the times of its files matter.
  claim(shutil.copytree(root, tmp_path / "moved"))
  image = root / "images" / "val" / "000.png"
  os.utime(image, (0, 0))
  claim()
  content = image.read_bytes()
  image.write_bytes(content[:-20] + bytes(20))
  refuse("the bytes of the files of the split 'val' changed")
  image.write_bytes(content + b"0")
  refuse("the sizes of the files of the split 'val' changed")
  for kind in ("images", "masks"):
    (root / kind / "train" / "000.png").rename(root / kind / "train" / "x.png")
  refuse("the names of the files of the split 'train' changed")
  for kind in ("images", "masks"):
    (root / kind / "train" / "x.png").unlink()
  refuse("of examples of the split 'train' changed .11 before, 10 now")

  (run / "data.json").write_bytes(b"\xff")
  claim()
  assert "data.json is damaged and was replaced" in capsys.readouterr().err


def test_the_drawn_data_set_is_described():
  assert contents.describe(sources.find("shapes"))["train"]["examples"] > 100


@pytest.mark.parametrize(
  "name, kept",
  [
    ("paper", {}),
    ("none", {}),
    ("batch", {"momentum": 0.9, "epsilon": 1e-5, "frozen": True}),
    ("group", {"epsilon": 1e-5}),
  ],
)
def test_fields_of_the_norm_that_were_ignored_are_not_applied(
  tmp_path, name, kept
):
  """An earlier version stored a value for each field, used or not."""
  tree = base().to_dict()
  tree["norm"] = dict(name=name, momentum=0.9, epsilon=1e-5, frozen=True)
  (tmp_path / "config.json").write_text(json.dumps(tree))
  paper = {"momentum": None, "epsilon": None, "frozen": False, "groups": None}
  loaded = workdirs.load_config(tmp_path).norm.to_dict()
  assert loaded == {"name": name, **paper, **kept}
