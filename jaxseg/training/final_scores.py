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
from jaxseg.data.contents import Contents
from jaxseg.tasks.task import Scores


def origin(config: ConfigDict, contents: Contents) -> dict[str, Any]:
  """Returns what the final scores of a run depend on.

  Args:
    config: The complete configuration.
    contents: Description of the files of each split.
  """
  split = config.data.eval_split
  values = {
    "step": config.train.steps,
    "split": split,
    "files": contents[split],
    "eval": config.eval.to_dict(),
  }
  # JSON turns tuples into lists.
  return json.loads(json.dumps(values))


def write(
  scores: Scores, workdir: epath.PathLike, origin: dict[str, Any]
) -> None:
  """Writes scores and their `origin`.

  Raises:
    UserError: The disk is full or refuses the file.
  """
  values = {key: _plain(value) for key, value in scores.items()}
  text = json.dumps({"of": origin, "scores": values}) + "\n"
  files.write_text(_path(workdir), text)


def read(workdir: epath.PathLike, origin: dict[str, Any]) -> Scores | None:
  """Returns the scores that `write` wrote.

  None if there is no readable file, or if it has the scores of another origin.
  """
  try:
    tree = json.loads(_path(workdir).read_text())
    if tree["of"] != origin:
      return None
    return {key: _value(value) for key, value in tree["scores"].items()}
  except (OSError, ValueError, TypeError, KeyError, AttributeError):
    return None


def _path(workdir: epath.PathLike) -> epath.Path:
  return files.to_path(workdir) / "scores.json"


def _plain(value: float | np.ndarray) -> Any:
  """Returns a value that JSON has: null for NaN, and lists for arrays."""
  if isinstance(value, np.ndarray):
    return value.tolist()
  return None if math.isnan(value) else value


def _value(value: Any) -> Any:
  if isinstance(value, list):
    return np.asarray(value)
  return math.nan if value is None else value
