"""Weight files: round trips, and errors for every kind of bad file."""

import os
import pickle
import sys
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxseg import weights
from jaxseg.errors import UserError
from jaxseg.weights import files
from jaxseg.weights.wrappers import WRAPPERS

VARIABLES = {
  "params": {"head": {"kernel": np.arange(6.0).reshape(2, 3)}},
  "batch_stats": {"norm": {"mean": np.ones(3, np.float32)}},
}


class Attack:
  """Creates the file `path` when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (str(self.path), "w"))


def refusal(path) -> str:
  """Returns the error of a refused file, which is one line."""
  with pytest.raises(UserError) as caught:
    weights.read_file(path)
  message = str(caught.value)
  assert str(path) in message and "\n" not in message
  return message


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_round_trip(tmp_path, suffix):
  path = tmp_path / "folder" / f"weights{suffix}"
  weights.save(path, VARIABLES)
  loaded = weights.load(path)
  assert os.listdir(path.parent) == [path.name]
  np.testing.assert_array_equal(
    loaded["params"]["head"]["kernel"], VARIABLES["params"]["head"]["kernel"]
  )
  np.testing.assert_array_equal(loaded["batch_stats"]["norm"]["mean"], 1)
  assert loaded["batch_stats"]["norm"]["mean"].dtype == np.float32


def test_keys_are_paths(tmp_path):
  weights.save(tmp_path / "w.safetensors", VARIABLES)
  flat = safetensors.numpy.load_file(tmp_path / "w.safetensors")
  assert set(flat) == {"params/head/kernel", "batch_stats/norm/mean"}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_failed_write_leaves_the_old_file(tmp_path, suffix, monkeypatch):
  path = tmp_path / f"w{suffix}"
  weights.save(path, VARIABLES)
  before = path.read_bytes()

  def fail(*args):
    raise OSError("disk full")

  monkeypatch.setattr(os, "replace", fail)
  with pytest.raises(UserError, match="cannot be written .disk full"):
    weights.save(path, {"params": {}})
  assert path.read_bytes() == before
  assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_converted_weights_on_an_object_store(bucket, tmp_path, suffix):
  weights.save(tmp_path / f"w{suffix}", VARIABLES)
  weights.save(bucket / f"w{suffix}", VARIABLES)
  local = weights.load(tmp_path / f"w{suffix}")
  remote = weights.load(f"gs://bucket/w{suffix}")
  jax.tree.map(np.testing.assert_array_equal, local, remote)


def test_save_and_load_name_what_they_expect(tmp_path):
  with pytest.raises(UserError, match=r"ending in .npz or .safetensors"):
    weights.save(tmp_path / "w.pth", VARIABLES)
  np.savez(tmp_path / "theirs.npz", **{"conv1.weight": np.zeros(3)})
  with pytest.raises(UserError, match=r"'conv1.weight'.*jaxseg convert"):
    weights.load(tmp_path / "theirs.npz")


def test_prefixes_that_all_names_share_are_removed(tmp_path):
  def names(*given):
    np.savez(tmp_path / "w.npz", **{name: np.zeros(1) for name in given})
    return set(weights.read_file(tmp_path / "w.npz"))

  assert names("module.a.weight", "module.b") == {"a.weight", "b"}
  assert names("model.a", "model.module.b") == {"a", "module.b"}
  assert names("module._orig_mod.a") == {"a"}
  assert names("module.a", "other.c") == {"module.a", "other.c"}


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_files_without_weights(tmp_path, suffix):
  path = tmp_path / f"w{suffix}"
  assert "no such weight file" in refusal(path)
  path.write_text("\n<!DOCTYPE html><html><title>Sign in</title>")
  assert "web page" in refusal(path)
  path.write_bytes(b"")
  assert "empty" in refusal(path)


def test_the_content_counts_not_the_ending(tmp_path):
  for suffix in (".npz", ".safetensors"):
    weights.save(tmp_path / f"w{suffix}", VARIABLES)
    other = tmp_path / "w.th"
    other.write_bytes((tmp_path / f"w{suffix}").read_bytes())
    assert list(weights.load(other)["params"]) == ["head"]
  other.write_bytes(b"\x89HDF\r\n and more")
  assert "not a complete safetensors, .npz or PyTorch file" in refusal(other)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_nan_and_infinity_are_refused(tmp_path, suffix):
  path = tmp_path / f"w{suffix}"
  good = {"count": np.arange(3), "mean": np.ones(3, np.float16)}
  for value in (np.nan, -np.inf):
    bad = np.asarray([1.0, value, value])
    weights.save(path, {"params": {**good, "bias": bad, "scale": bad}})
    message = refusal(path)
    assert "2 of the 3 values of 'params/bias' are NaN or infinite" in message
    assert "2 of 4 arrays" in message
  weights.save(path, {"params": good})
  assert len(weights.read_file(path)) == 2


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_network_of_a_file_is_stored_beside_its_arrays(tmp_path, suffix):
  path, network = tmp_path / f"w{suffix}", {"kind": "PSPNet", "bins": [1, 2]}
  weights.save(path, VARIABLES, network)
  assert files.read(path).network == network
  assert set(files.read(path).arrays) == {
    "params/head/kernel",
    "batch_stats/norm/mean",
  }
  weights.save(path, VARIABLES)
  assert files.read(path).network is None


def test_an_unreadable_network_is_refused(tmp_path):
  for text in ("{", "[]", '{"network": 3}'):
    np.savez(tmp_path / "w.npz", a=np.ones(1), __metadata__=np.asarray(text))
    assert "convert the original file again" in refusal(tmp_path / "w.npz")
  safetensors.numpy.save_file(
    {"a": np.ones(1)}, tmp_path / "w.safetensors", {"format": "pt"}
  )
  assert files.read(tmp_path / "w.safetensors").network is None


def test_paths_that_cannot_be_written(tmp_path):
  (tmp_path / "folder.npz").mkdir()
  (tmp_path / "folder").mkdir()
  (tmp_path / "file").touch()
  for name, text in {
    "folder.npz": "folder.npz: is a directory; expected the path of the file",
    "folder": "folder: is a directory; expected the path of the file",
    "file/a/w.npz": "file is a file, so it cannot contain another",
  }.items():
    with pytest.raises(UserError, match=text):
      weights.save(tmp_path / name, VARIABLES)
  assert "is a directory" in refusal(tmp_path / "folder.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
def test_a_truncated_file(tmp_path, suffix, share):
  path = tmp_path / f"w{suffix}"
  weights.save(path, {"params": {"a": np.random.rand(999)}})
  whole = path.read_bytes()
  path.write_bytes(whole[: int(share * len(whole))])
  assert "cut short" in refusal(path)


def test_pickled_objects_in_npz_do_not_execute(tmp_path):
  attack = np.array([Attack(tmp_path / "executed")], object)
  np.savez(tmp_path / "w.npz", a=attack)
  assert "pickled" in refusal(tmp_path / "w.npz")
  assert not (tmp_path / "executed").exists()


def test_without_torch_the_error_names_the_fix(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  path = tmp_path / "w.pth"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("w/data.pkl", b"")
  assert "pip install torch" in refusal(path)
  path.write_bytes(b"\x80\x02")
  assert "pip install torch" in refusal(path)


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".th"])
@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
def test_torch_files(tmp_path, zipped, suffix, wrapper):
  torch = pytest.importorskip("torch")
  state = {
    "module.w": torch.arange(3.0),
    "module.h": torch.ones(2, dtype=torch.bfloat16),
    "module.n": torch.tensor(4),
    "mask_values": [0, 1],
  }
  saved = state if wrapper is None else {wrapper: state, "epoch": 3}
  path = tmp_path / f"w{suffix}"
  torch.save(saved, path, _use_new_zipfile_serialization=zipped)
  flat = weights.read_file(path)
  assert set(flat) == {"w", "h", "n"}
  np.testing.assert_array_equal(flat["w"], [0, 1, 2])
  np.testing.assert_array_equal(flat["h"], [1, 1])


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_does_not_execute(tmp_path, zipped):
  torch = pytest.importorskip("torch")
  path, proof = tmp_path / "w.pth", tmp_path / "executed"
  torch.save({"w": Attack(proof)}, path, _use_new_zipfile_serialization=zipped)
  assert "not loaded" in refusal(path)
  for protocol in (2, 4):
    path.write_bytes(pickle.dumps({"w": Attack(proof)}, protocol))
    refusal(path)
  assert not proof.exists()


@pytest.mark.torch
def test_torch_files_without_arrays(tmp_path):
  torch = pytest.importorskip("torch")
  path = tmp_path / "w.pth"
  torch.save(torch.nn.Linear(2, 2), path)
  assert "state_dict()" in refusal(path)
  torch.save([torch.zeros(1)], path)
  assert "found list" in refusal(path)
  torch.save({"epoch": 3}, path)
  assert "'epoch' is a int" in refusal(path)
  torch.save({"step": torch.tensor(1), "g": {"w": torch.ones(1)}}, path)
  assert "'g' is a dict" in refusal(path)


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_truncated_torch_file(tmp_path, zipped, share):
  torch = pytest.importorskip("torch")
  path = tmp_path / "w.pth"
  state = {"w": torch.rand(999), "b": torch.rand(9)}
  torch.save(state, path, _use_new_zipfile_serialization=zipped)
  whole = path.read_bytes()
  path.write_bytes(whole[: int(share * len(whole))])
  assert "cut short" in refusal(path)
