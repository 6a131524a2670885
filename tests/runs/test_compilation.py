"""Compiled functions are kept in the work directory, up to a limit."""

import os
import subprocess
import sys

import pytest

from jaxseg.runs import compilation

# The second process reads what the first one compiled.
COMPILE = """
import sys, warnings
import jax
from jax import monitoring
from jaxseg.runs import compilation
warnings.simplefilter("error")
jax.jit(lambda x: x + 1)(1.0)  # Compiled before the folder is known.
compilation.keep(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name))
x = jax.random.normal(jax.random.key(0), (64, 64))
print(float(jax.jit(lambda x: (x @ x).sum())(x)))
print(sum("cache_hits" in name for name in events))
"""


def run(workdir, **environment):
  result = subprocess.run(
    [sys.executable, "-c", COMPILE, str(workdir)],
    env={
      **os.environ,
      "JAX_ENABLE_COMPILATION_CACHE": "true",
      **environment,
    },
    capture_output=True,
    text=True,
    check=True,
  )
  assert not result.stderr
  value, hits = result.stdout.split()
  return value, int(hits)


def test_a_second_command_compiles_nothing_and_computes_the_same(tmp_path):
  first, hits = run(tmp_path)
  assert hits == 0
  (folder,) = (tmp_path / compilation.FOLDER).iterdir()
  assert list(folder.iterdir())
  second, hits = run(tmp_path)
  assert second == first and hits > 0


@pytest.mark.slow
def test_a_cache_of_the_users_own_is_used_instead(tmp_path):
  run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
  assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_the_oldest_files_are_deleted(tmp_path, monkeypatch):
  folder = tmp_path / compilation.FOLDER / "machine"
  folder.mkdir(parents=True)
  for age in range(4):
    path = folder / f"{age}-cache"
    path.write_bytes(bytes(100))
    os.utime(path, (1e9 - age, 1e9 - age))
  monkeypatch.setattr(compilation, "LIMIT", 250)
  compilation._shrink(folder.parent)
  assert {path.name for path in folder.iterdir()} == {"0-cache", "1-cache"}
