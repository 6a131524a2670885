"""The scores of a finished run: `scores.json` in its work directory.

A command that finds nothing left to train prints them again.
"""

import json
import math
from typing import Any

from etils import epath
from ml_collections import ConfigDict
import numpy as np

from jaxseg import files
from jaxseg.tasks.task import Scores


def write(
  scores: Scores, workdir: epath.PathLike, config: ConfigDict, step: int
) -> None:
  """Writes the scores of a state.

  Args:
    scores: Scores that the task returned.
    workdir: The work directory.
    config: The complete configuration.
    step: Number of steps taken.

  Raises:
    UserError: The disk is full or refuses the file.
  """
  values = {key: _plain(value) for key, value in scores.items()}
  text = json.dumps({"of": _origin(config, step), "scores": values}) + "\n"
  files.write_text(_path(workdir), text)


def read(
  workdir: epath.PathLike, config: ConfigDict, step: int
) -> Scores | None:
  """Returns the scores that `write` wrote.

  None if there is no readable file, or if it has the scores of another step or
  of other settings of evaluation.
  """
  try:
    tree = json.loads(_path(workdir).read_text())
    if tree["of"] != _origin(config, step):
      return None
    return {key: _value(value) for key, value in tree["scores"].items()}
  except (OSError, ValueError, TypeError, KeyError, AttributeError):
    return None


def _path(workdir: epath.PathLike) -> epath.Path:
  return files.to_path(workdir) / "scores.json"


def _origin(config: ConfigDict, step: int) -> dict[str, Any]:
  """Returns what the scores of a run depend on, as JSON reads it back."""
  origin = {
    "step": step,
    "path": config.data.path,
    "split": config.data.eval_split,
    "eval": config.eval.to_dict(),
  }
  return json.loads(json.dumps(origin))


def _plain(value: float | np.ndarray) -> Any:
  """Returns a value that JSON has: null for NaN, and lists for arrays."""
  if isinstance(value, np.ndarray):
    return value.tolist()
  return None if math.isnan(value) else value


def _value(value: Any) -> Any:
  if isinstance(value, list):
    return np.asarray(value)
  return math.nan if value is None else value
