"""Keeps compiled functions in the work directory for the next command.

Compiling takes most of the time before the first step. A command that continues
a run, evaluates it or predicts with it reads what an earlier one compiled from
JAX's persistent compilation cache.
"""

import hashlib
from pathlib import Path
import platform

from etils import epath
import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxseg import files

FOLDER = "compiled"

# Largest size of the folder in bytes.
LIMIT = 2**30


def keep(workdir: epath.PathLike) -> None:
  """Starts to keep compiled functions in an existing work directory.

  A cache of the user's own, which JAX_COMPILATION_CACHE_DIR names, is used
  instead, and JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
  """
  is_chosen = jax.config.jax_compilation_cache_dir is not None
  is_enabled = jax.config.jax_enable_compilation_cache
  if is_chosen or not is_enabled or files.is_remote(workdir):
    return
  folder = Path(workdir).resolve() / FOLDER / _machine()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
      _shrink(folder.parent)
  except OSError:  # The folder belongs to somebody else.
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  # JAX has decided at its first compilation that there is no cache.
  compilation_cache.reset_cache()


def _machine() -> str:
  """Returns a name for the instruction set of this machine.

  Functions that are compiled for one CPU may use instructions that the next one
  lacks, and a work directory may be shared or copied.
  """
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  features = {line for line in lines if line.startswith(("flags", "Features"))}
  text = "\n".join([platform.processor(), *sorted(features)])
  digest = hashlib.sha256(text.encode()).hexdigest()
  return f"{platform.machine()}-{digest[:12]}"


def _shrink(folder: Path) -> None:
  """Deletes the oldest files until the folder is smaller than LIMIT."""
  stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
  size = sum(stat.st_size for stat in stats.values())
  for path in sorted(stats, key=lambda path: stats[path].st_mtime):
    if size <= LIMIT:
      return
    path.unlink(missing_ok=True)
    size -= stats[path].st_size
