"""`metrics.jsonl`: the scores of a run, one JSON object a line."""

from collections.abc import Iterable
import json
from pathlib import Path
from typing import Any

from jaxseg.errors import UserError
from jaxseg.runs.workdir import write_atomically


class MetricsLog:
  """`metrics.jsonl`: one JSON object a line, each with `step` and `split`."""

  def __init__(self, workdir: Path, *, resume_step: int, enabled: bool = True):
    """Opens the log; lines after `resume_step` are dropped, to come again."""
    self._path = workdir / "metrics.jsonl"
    self._enabled = enabled
    self._written = set()
    if enabled and self._path.exists():
      # A line torn by a power cut has no end.
      lines = self._path.read_text().splitlines(keepends=True)
      whole = [json.loads(line) for line in lines if line.endswith("\n")]
      kept = [line for line in whole if line["step"] <= resume_step]
      self._written = {(line["step"], line["split"]) for line in kept}
      text = "".join(json.dumps(line) + "\n" for line in kept)
      write_atomically(self._path, text)

  def write(self, step: int, split: str, scalars: dict[str, float]) -> None:
    """Appends one line, unless it is there from before."""
    if not self._enabled or (step, split) in self._written:
      return
    line = json.dumps({"step": step, "split": split, **scalars})
    try:
      with open(self._path, "a") as f:
        f.write(line + "\n")
    except OSError as error:
      raise UserError(f"{self._path}: {error.strerror}") from error


def read_metrics(workdir: Path) -> Iterable[dict[str, Any]]:
  """The lines of `metrics.jsonl`."""
  with open(workdir / "metrics.jsonl") as f:
    return [json.loads(line) for line in f]
