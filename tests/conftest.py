"""Eight virtual devices and checked types, set up before jax is imported."""

import os

# Tests run on the CPU as eight devices, like a small pod. They compile more
# than they compute, so the compiler optimises less. Commands that tests start
# as processes are compiled in the usual way, see `run_process`.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
  (
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
  )
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests compile what they test.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

from jaxtyping import install_import_hook  # noqa: E402

# Every shape annotation of the library is checked in every call.
install_import_hook("jaxseg", "beartype.beartype")

from pathlib import Path  # noqa: E402
import posixpath  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402

from etils import epath  # noqa: E402
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
import pytest  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
  """Writes a folder of 11 train and 5 val examples with 3 classes."""
  root = tmp_path_factory.mktemp("folder")
  rng = np.random.default_rng(0)
  for split, count in (("train", 11), ("val", 5)):
    for kind in ("images", "masks"):
      (root / kind / split).mkdir(parents=True)
    for i in range(count):
      height, width = rng.integers(16, 25), rng.integers(20, 33)
      if split == "val":
        # Two sizes of the network's input, so that it is compiled twice.
        height, width = ((24, 32), (17, 27))[i % 2]
      mask = np.zeros((height, width), np.uint8)
      mask[4:12, 2:10] = 1
      mask[8:, 12:] = 2
      mask[0] = 255
      image = (
        rng.integers(0, 80, (height, width, 3)) + 60 * (mask % 3)[..., None]
      )
      name = f"{i:03d}.png"
      Image.fromarray(image.astype(np.uint8)).save(
        root / "images" / split / name
      )
      Image.fromarray(mask).save(root / "masks" / split / name)
  return root


@pytest.fixture
def train_command(tiny_folder, tmp_path):
  """Returns a function that builds a command line of train.py.

  It trains the tiny network on `tiny_folder`.
  """

  def command(workdir, *overrides, config="tests/tiny_pspnet.py:folder"):
    return [
      sys.executable,
      str(ROOT / "train.py"),
      f"--config={config}",
      f"--workdir={workdir}",
      f"--config.data.path={tiny_folder}",
      f"--config.data.prepared={tmp_path / 'prepared'}",
      *overrides,
    ]

  return command


@pytest.fixture
def run_process():
  """Returns a function that runs a command on `devices` CPU devices."""

  def run(command, *, devices=1, start=False, **kwargs):
    env = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    pipes = dict(
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    if start:
      return subprocess.Popen(command, env=env, **pipes, **kwargs)
    return subprocess.run(command, env=env, **pipes, **kwargs)

  return run


class ObjectStore(MemoryFileSystem):
  """fsspec's file system in memory, with the limits of an object store."""

  protocol = ("gcs", "gs")
  store = {}
  pseudo_dirs = [""]

  @classmethod
  def _strip_protocol(cls, path):
    return posixpath.join("/", path.removeprefix("gs://")).rstrip("/")

  def _open(self, path, mode="rb", **kwargs):
    if mode not in ("rb", "wb"):
      raise NotImplementedError(f"object stores cannot open files as {mode!r}")
    return super()._open(path, mode, **kwargs)

  def mv(self, *args, **kwargs):
    raise NotImplementedError("object stores cannot rename")


@pytest.fixture
def bucket(monkeypatch):
  """Returns gs://bucket, a bucket of an object store in memory."""
  # epath reaches gs:// with TensorFlow where that is installed, else with
  # fsspec. It remembers the choice, and the file system.
  gpath, backend = epath.gpath, epath.backend.fsspec_backend
  monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
  monkeypatch.setattr(backend, "_get_filesystem", lambda name: ObjectStore())
  monkeypatch.setattr(ObjectStore, "store", {})
  monkeypatch.setattr(ObjectStore, "pseudo_dirs", [""])
  return epath.Path("gs://bucket")
