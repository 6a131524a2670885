"""The scores of a run: `metrics.jsonl` and TensorBoard events."""

from collections.abc import Iterable
import json
import sys
from typing import Any

from etils import epath

from jaxseg import files
from jaxseg.data.notes import note


class MetricsLog:
  """Writes `metrics.jsonl`, one JSON object with `step` and `split` a line."""

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    resume_step: int,
    enabled: bool = True,
  ):
    """Opens the log and drops all lines after `resume_step`.

    Args:
      workdir: The work directory.
      resume_step: Step that training continues from; later steps will be
        taken and logged again.
      enabled: Whether this process writes the log.

    Raises:
      UserError: The file cannot be read or written.
    """
    self._path = files.to_path(workdir) / "metrics.jsonl"
    self._enabled = enabled
    self._lines = []
    self._written = set()
    if enabled and self._path.exists():
      for line in _read_lines(self._path):
        if line["step"] <= resume_step:
          self._lines.append(json.dumps(line) + "\n")
          self._written.add((line["step"], line["split"]))
      files.write_text(self._path, "".join(self._lines))

  def write(self, step: int, split: str, scalars: dict[str, float]) -> None:
    """Adds one line, unless the log already has one of `step` and `split`.

    Raises:
      UserError: The disk is full or refuses the file.
    """
    if not self._enabled or (step, split) in self._written:
      return
    line = json.dumps({"step": step, "split": split, **scalars}) + "\n"
    if files.is_remote(self._path):
      # Object stores cannot append: every line rewrites the file.
      self._lines.append(line)
      files.write_text(self._path, "".join(self._lines))
      return
    with files.disk_errors(self._path, "cannot be written"):
      with open(self._path, "a") as f:
        f.write(line)


def read_metrics(workdir: epath.PathLike) -> Iterable[dict[str, Any]]:
  """Reads all lines of `metrics.jsonl`."""
  return _read_lines(files.to_path(workdir) / "metrics.jsonl")


def _read_lines(path: epath.Path) -> list[dict[str, Any]]:
  """Reads the lines of a log; a note counts those that are damaged."""
  with files.disk_errors(path, "cannot be read", advice="move it elsewhere"):
    # A power cut can leave a last line without an end.
    complete = path.read_bytes().split(b"\n")[:-1]
  lines = [_parse(line) for line in complete]
  damaged = [number for number, line in enumerate(lines, 1) if line is None]
  if damaged:
    note(
      f"{path}: ignored {len(damaged)} damaged of {len(lines)} lines "
      f"(first: line {damaged[0]})"
    )
  return [line for line in lines if line is not None]


def _parse(text: bytes) -> dict[str, Any] | None:
  """Returns the object of a line, or None if the line is damaged."""
  try:
    line = json.loads(text)
  except ValueError:
    return None
  if not isinstance(line, dict) or not isinstance(line.get("step"), int):
    return None
  return line if isinstance(line.get("split"), str) else None


def tensorboard_writer(workdir: epath.PathLike, *, resume_step: int):
  """Creates a `tensorboardX.SummaryWriter` for a work directory.

  On an object store the writer discards everything and a note is printed,
  because event files grow by appending.

  Args:
    workdir: The work directory.
    resume_step: Step that training continues from; TensorBoard drops later
      events, which will be written again.
  """
  # Importing tensorboardX also imports torch where it is installed.
  from tensorboardX import SummaryWriter

  remote = files.is_remote(workdir)
  if remote:
    print(
      f"{workdir}: TensorBoard events need a local work directory and are not "
      "written; metrics.jsonl and pictures/ hold the same values",
      file=sys.stderr,
    )
  return SummaryWriter(
    str(workdir), purge_step=resume_step + 1, write_to_disk=not remote
  )
