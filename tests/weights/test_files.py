"""Weight files: round trips, and errors for every kind of bad file."""

import os
import pickle
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxseg import weights
from jaxseg.errors import UserError

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
  copy = tmp_path / f"copy{suffix}"
  copy.write_bytes((bucket / f"w{suffix}").read_bytes())
  local, remote = weights.load(tmp_path / f"w{suffix}"), weights.load(copy)
  jax.tree.map(np.testing.assert_array_equal, local, remote)


def test_save_and_load_name_what_they_expect(tmp_path):
  with pytest.raises(UserError, match=r"ending in .npz or .safetensors"):
    weights.save(tmp_path / "w.pth", VARIABLES)
  np.savez(tmp_path / "theirs.npz", **{"conv1.weight": np.zeros(3)})
  with pytest.raises(UserError, match=r"'conv1.weight'.*jaxseg convert"):
    weights.load(tmp_path / "theirs.npz")


def test_the_prefix_of_data_parallel_is_removed(tmp_path):
  arrays = {"module.a.weight": np.zeros(3), "module.b": np.zeros(1)}
  np.savez(tmp_path / "w.npz", **arrays)
  assert set(weights.read_file(tmp_path / "w.npz")) == {"a.weight", "b"}
  arrays["other.c"] = np.zeros(1)
  np.savez(tmp_path / "w.npz", **arrays)
  assert set(weights.read_file(tmp_path / "w.npz")) == set(arrays)


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_files_without_weights(tmp_path, suffix):
  path = tmp_path / f"w{suffix}"
  assert "no such weight file" in refusal(path)
  path.write_text("\n<!DOCTYPE html><html><title>Sign in</title>")
  assert "web page" in refusal(path)
  path.write_bytes(b"")
  assert "empty" in refusal(path)


def test_an_unknown_ending_lists_the_known_ones(tmp_path):
  path = tmp_path / "w.h5"
  path.write_bytes(b"123")
  assert ".safetensors, .npz, .pth" in refusal(path)


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
  path.write_bytes(b"PK1234")
  assert "pip install torch" in refusal(path)


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_torch_files(tmp_path, zipped, wrapper):
  torch = pytest.importorskip("torch")
  state = {
    "module.w": torch.arange(3.0),
    "module.h": torch.ones(2, dtype=torch.bfloat16),
    "module.n": torch.tensor(4),
  }
  saved = state if wrapper is None else {wrapper: state, "epoch": 3}
  path = tmp_path / "w.pth"
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
