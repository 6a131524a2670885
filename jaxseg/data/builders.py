"""Prepares a data set once as ArrayRecord shards, with TFDS.

Examples are stored as training reads them: placed on the canvas, as raw bytes.
ArrayRecord compresses each record separately (zstd). A 360x480 street scene
takes 290 KB and 1 ms to read; as PNG it takes 210 KB and 5 ms, which is too
slow to feed an accelerator.

The folder of a prepared data set is `<data.prepared>/<name>/<fingerprint>`. It
is built under a temporary name and renamed when it is complete, so an
interrupted preparation never leaves an incomplete folder under the final name.
One process prepares while the others wait. A folder whose files differ from its
manifest is prepared again.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import io
import json
import os
from pathlib import Path
import shutil
import socket
import sys

# TensorFlow reads these variables when it is imported. They silence its log
# and switch off oneDNN, which prints a notice and is of use to networks alone.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import logging  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_datasets as tfds  # noqa: E402

from jaxseg import files  # noqa: E402
from jaxseg.data import audit, examples, lock, manifest  # noqa: E402
from jaxseg.data.notes import note  # noqa: E402
from jaxseg.data.placement import Placement  # noqa: E402
from jaxseg.data.sources import Source  # noqa: E402
from jaxseg.errors import UserError  # noqa: E402

_METADATA = "jaxseg.json"


def _hide_accelerators() -> None:
  """Keeps TensorFlow from reserving the device memory that JAX needs."""
  for kind in ("GPU", "TPU"):
    try:
      tf.config.set_visible_devices([], kind)
    except RuntimeError as error:
      raise UserError(
        f"TensorFlow has initialised the {kind}s before jaxseg.data could hide"
        " them from it; import jaxseg.data.builders before using TensorFlow"
      ) from error


_hide_accelerators()


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes the examples of a data set.

  TFDS names a data set after its class, so each data set has a subclass.
  """

  VERSION = tfds.core.Version("1.0.0")
  # There are no checksums of downloads beside this file. TFDS would search for
  # them with importlib_resources, a package that it does not require.
  code_path = None

  def __init__(
    self, source: Source, placement: Placement, dtype: np.dtype, **kwargs
  ):
    self._source, self._placement, self._dtype = source, placement, dtype
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    raw = tfds.features.Encoding.BYTES
    canvas = self._placement.canvas
    features = {
      "image": tfds.features.Tensor(
        shape=(*canvas, 3), dtype=np.uint8, encoding=raw
      ),
      "label": tfds.features.Tensor(
        shape=canvas, dtype=self._dtype, encoding=raw
      ),
      "size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
    }
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )

  def _split_generators(self, dl_manager):
    return {s: self._generate_examples(s) for s in self._source.splits}

  def _generate_examples(self, split: str):
    yield from enumerate(
      examples.generate(self._source, split, self._placement, self._dtype)
    )


class JaxsegShapes(_Builder):
  """The data set that jaxseg draws itself."""


class JaxsegCamvid(_Builder):
  """The SegNet tutorial's version of CamVid."""


class JaxsegFolder(_Builder):
  """A folder of images and masks."""


class JaxsegIsbiEm(_Builder):
  """Sections of the electron microscopy challenge of ISBI 2012."""


BUILDERS = {
  "shapes": JaxsegShapes,
  "camvid": JaxsegCamvid,
  "folder": JaxsegFolder,
  "isbi_em": JaxsegIsbiEm,
}


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A complete data set on disk.

  Attributes:
    folder: Folder of the data set.
    path: Folder in it that TFDS reads.
    counts: Occurrences of each id in each split.
    dtype: Type of the labels.
  """

  folder: Path
  path: Path
  counts: audit.Counts
  dtype: np.dtype

  def read_error(self, split: str, error: Exception) -> UserError:
    """Returns an error about records that cannot be read."""
    reason = manifest.damage(self.folder, thorough=True)
    reason = reason or " ".join(str(error).split())
    return UserError(
      f"{self.folder}: the prepared split {split!r} is damaged ({reason});"
      " delete this folder, and the next run prepares it again"
    )


def prepare(
  name: str,
  source: Source,
  placement: Placement,
  root: str,
  check: Callable[[audit.Counts], object],
) -> Prepared:
  """Prepares a data set, unless it has been prepared before.

  Args:
    name: Key of `BUILDERS`.
    source: The original files.
    placement: Placement of examples on the canvas.
    root: Folder of all prepared data sets, `config.data.prepared`.
    check: Function that raises UserError for ids that are not allowed. It is
      called before anything is written.

  Returns:
    The prepared data set.

  Raises:
    UserError: A file cannot be used, or the disk is full.
  """
  folder = Path(root).expanduser().absolute() / name
  final = folder / examples.fingerprint(source, placement)
  if manifest.damage(final):
    with _disk_errors(folder):
      folder.mkdir(parents=True, exist_ok=True)
      path = folder / f".{final.name}.lock"
      with lock.locked(path, f"preparing {name}"):
        _build_once(name, source, placement, final, check)
  prepared = _read(final)
  check(prepared.counts)
  return prepared


def _build_once(
  name: str,
  source: Source,
  placement: Placement,
  final: Path,
  check: Callable[[audit.Counts], object],
) -> None:
  """Builds a data set, unless another process has built it meanwhile."""
  reason = manifest.damage(final)
  if not reason:
    return
  if final.exists():
    note(f"{final} is damaged ({reason}), so it is prepared again")
  counts = audit.count_ids(source, placement)
  check(counts)
  _build(name, source, placement, final, counts)


def _build(
  name: str,
  source: Source,
  placement: Placement,
  final: Path,
  counts: audit.Counts,
) -> None:
  """Builds a data set under a temporary name and renames it to `final`."""
  dtype = audit.label_dtype(counts, placement.ignore_label)
  partial = final.with_name(
    f"{final.name}.{socket.gethostname()}.{os.getpid()}"
  )
  print(f"preparing {name} once, in {final}", file=sys.stderr)
  with _disk_errors(final.parent):
    _remove_abandoned(final.parent)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
  try:
    with _disk_errors(final.parent), _quiet():
      builder = BUILDERS[name](source, placement, dtype, data_dir=str(partial))
      builder.download_and_prepare(file_format="array_record")
      metadata = {
        "name": name,
        "data": str(Path(builder.data_dir).relative_to(partial)),
        "dtype": dtype.name,
        **_describe(source, placement, counts),
      }
      (partial / _METADATA).write_text(json.dumps(metadata))
      manifest.write(partial)
    _publish(partial, final)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _describe(
  source: Source, placement: Placement, counts: audit.Counts
) -> dict:
  """Returns the counts of a data set, and its settings and file names.

  Only the counts are read again. The rest is for people who inspect the folder.
  """
  return {
    "placement": dataclasses.asdict(placement),
    "counts": {
      split: {i: dataclasses.asdict(c) for i, c in ids.items()}
      for split, ids in counts.items()
    },
    "files": {
      split: [source.name(split, i) for i in range(len(listed))]
      for split, listed in source.splits.items()
    },
  }


def _publish(partial: Path, final: Path) -> None:
  """Renames a complete data set, unless another process has finished first."""
  if final.exists() and manifest.damage(final):
    shutil.rmtree(final)
  try:
    partial.rename(final)
  except OSError:
    if manifest.damage(final):
      raise


def _read(final: Path) -> Prepared:
  """Reads the metadata of a prepared data set."""
  metadata = json.loads((final / _METADATA).read_text())
  counts = {
    split: {int(i): audit.IdCount(**c) for i, c in ids.items()}
    for split, ids in metadata["counts"].items()
  }
  return Prepared(
    folder=final,
    path=final / metadata["data"],
    counts=counts,
    dtype=np.dtype(metadata["dtype"]),
  )


def _remove_abandoned(folder: Path) -> None:
  """Deletes unfinished data sets of processes that died on this machine."""
  for path in folder.glob(f"*.{socket.gethostname()}.*"):
    process = path.suffix[1:]
    if process.isdigit() and not _is_alive(int(process)):
      shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
  """Returns whether a process with this id runs on this machine."""
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True


def _disk_errors(folder: Path):
  """Turns errors of the disk in the block into a UserError."""
  return files.disk_errors(
    folder,
    "cannot write the prepared data set",
    advice="free some space, or choose another folder with "
    "--config.data.prepared=FOLDER",
  )


@contextlib.contextmanager
def _quiet():
  """Silences TFDS's progress bars and messages, which repeat jaxseg's."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.WARNING)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()
    logging.set_verbosity(verbosity)
