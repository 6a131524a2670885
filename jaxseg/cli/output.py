"""What commands print with `--json`."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import math
import sys
from typing import Any

import numpy as np


@contextlib.contextmanager
def messages(*, to_stderr: bool) -> Iterator[None]:
  """Sends printed messages to standard error if `to_stderr` is true.

  With `--json`, standard output then holds the JSON object alone.
  """
  with contextlib.ExitStack() as stack:
    if to_stderr:
      stack.enter_context(contextlib.redirect_stdout(sys.stderr))
    yield


def print_json(values: Mapping[str, Any]) -> None:
  """Prints one JSON object in one line.

  Arrays become lists. NaN and infinities, which JSON lacks, become null.
  """
  print(json.dumps(_plain(values), allow_nan=False))


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, np.ndarray):
    return _plain(value.tolist())
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
