"""TFDS prepares a data set once, into ArrayRecord shards.

An example is stored as it will be used: placed on the canvas, as raw bytes.
ArrayRecord compresses each record by itself (zstd), so a 360x480 street scene
takes 290 KB where PNG takes 210, and is read in 1 ms where PNG takes 5; with
PNG the host could not feed an accelerator.

A set lies in `<data.prepared>/<name>/<fingerprint>`. It is built beside that
in a folder of its own and renamed at the very end, so a folder that has its
final name is complete, whatever interrupted the building of others.
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

# TensorFlow reads these once, when it is imported: no log lines, and none
# about oneDNN, which only its networks would use.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import logging  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_datasets as tfds  # noqa: E402

from jaxseg import files  # noqa: E402
from jaxseg.data import audit, examples  # noqa: E402
from jaxseg.data.placement import Placement  # noqa: E402
from jaxseg.data.sources import Source  # noqa: E402
from jaxseg.errors import UserError  # noqa: E402

_METADATA = "jaxseg.json"


def _hide_accelerators() -> None:
  """TensorFlow would take all memory of the devices that JAX computes on."""
  for kind in ("GPU", "TPU"):
    try:
      tf.config.set_visible_devices([], kind)
    except RuntimeError as error:
      raise UserError(
        f"TensorFlow has taken the {kind}s before jaxseg.data could hide them"
        " from it; import jaxseg.data.builders before using TensorFlow"
      ) from error


_hide_accelerators()


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes the examples of a source; the subclasses are its names in TFDS."""

  VERSION = tfds.core.Version("1.0.0")
  # No checksums of downloads lie beside this file; looking for them needs a
  # package that TFDS uses without requiring it (importlib_resources).
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
    made = examples.generate(self._source, split, self._placement, self._dtype)
    yield from enumerate(made)


class JaxsegShapes(_Builder):
  """The embedded data set."""


class JaxsegCamvid(_Builder):
  """CamVid in the form of the SegNet tutorial."""


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
  """A complete set on disk.

  Attributes:
    path: the folder that TFDS reads.
    counts: pixels of each id in each split.
    dtype: of the labels.
  """

  path: Path
  counts: audit.Counts
  dtype: np.dtype


def prepare(
  name: str,
  source: Source,
  placement: Placement,
  root: str,
  check: Callable[[audit.Counts], object],
) -> Prepared:
  """Builds the set unless it is there already.

  Args:
    name: key of `BUILDERS`.
    source: the originals.
    placement: how they become examples.
    root: `data.prepared`.
    check: refuses ids; called before anything is written.
  """
  folder = Path(root).expanduser().absolute() / name
  final = folder / examples.fingerprint(source, placement)
  if not (final / _METADATA).is_file():
    counts = audit.count_ids(source, placement)
    check(counts)
    _build(name, source, placement, final, counts)
  prepared = _read(final)
  check(prepared.counts)
  return prepared


def _build(
  name: str,
  source: Source,
  placement: Placement,
  final: Path,
  counts: audit.Counts,
) -> None:
  """Writes a set beside `final` and moves it there."""
  dtype = audit.label_dtype(counts, placement.ignore_label)
  partial = final.with_name(
    f"{final.name}.{socket.gethostname()}.{os.getpid()}"
  )
  print(f"preparing {name} once, in {final}", file=sys.stderr)
  with _disk_errors(final.parent):
    _remove_remains(final.parent)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
  try:
    with _disk_errors(final.parent), _quiet():
      builder = BUILDERS[name](source, placement, dtype, data_dir=str(partial))
      builder.download_and_prepare(file_format="array_record")
      made = {
        "name": name,
        "data": str(Path(builder.data_dir).relative_to(partial)),
        "dtype": dtype.name,
        **_describe(source, placement, counts),
      }
      (partial / _METADATA).write_text(json.dumps(made))
    _publish(partial, final)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _describe(
  source: Source, placement: Placement, counts: audit.Counts
) -> dict:
  """What a person may want to know of a prepared set, and we of its ids."""
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
  """Gives a complete set its name, unless another process was faster."""
  if final.exists() and not (final / _METADATA).is_file():
    shutil.rmtree(final)  # somebody deleted half of it
  try:
    partial.rename(final)
  except OSError:
    if not (final / _METADATA).is_file():
      raise


def _read(final: Path) -> Prepared:
  made = json.loads((final / _METADATA).read_text())
  counts = {
    split: {int(i): audit.IdCount(**c) for i, c in ids.items()}
    for split, ids in made["counts"].items()
  }
  return Prepared(final / made["data"], counts, np.dtype(made["dtype"]))


def _remove_remains(folder: Path) -> None:
  """Deletes what killed processes of this machine left unfinished."""
  for path in folder.glob(f"*.{socket.gethostname()}.*"):
    process = path.suffix[1:]
    if process.isdigit() and not _is_alive(int(process)):
      shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True


def _disk_errors(folder: Path):
  return files.disk_errors(
    folder,
    "cannot write the prepared data set",
    advice="free some space, or choose another folder with "
    "--config.data.prepared=FOLDER",
  )


@contextlib.contextmanager
def _quiet():
  """Silences TFDS's own bars and lines, ours say the same."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.WARNING)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()
    logging.set_verbosity(verbosity)
