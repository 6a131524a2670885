"""Rewrites ids of mask files to class ids 0..K-1 or the ignore label.

`data.label_map` rewrites ids while masks are read. "{255: 1}" turns 255 into 1;
the braces may be left out. All pairs apply to the ids in the file, at once.
"""

import re

from jaxtyping import Integer
import numpy as np

from jaxseg.errors import UserError

_PAIR = re.compile(r"\s*(-?\d+)\s*:\s*(-?\d+)\s*")


def parse_label_map(text: str) -> dict[int, int]:
  """Parses a label map such as "{255: 1, 38: 0}" or "255:1,38:0".

  The text is not evaluated as Python.

  Raises:
    UserError: The text is not a label map, or an id has two targets.
  """
  body = text.strip()
  if body.startswith("{") and body.endswith("}"):
    body = body[1:-1]
  result: dict[int, int] = {}
  for part in filter(str.strip, body.split(",")):
    match = _PAIR.fullmatch(part)
    if not match:
      raise UserError(
        f"data.label_map={text!r}: cannot read {part.strip()!r}; expected"
        " pairs of ids, --config.data.label_map='{255: 1, 38: 0}'"
      )
    old, new = int(match[1]), int(match[2])
    if result.get(old, new) != new:
      raise UserError(
        f"data.label_map={text!r}: id {old} is mapped to both {result[old]} and"
        f" {new}; name it once"
      )
    result[old] = new
  return result


def format_label_map(label_map: dict[int, int]) -> str:
  """Returns the command-line flag that sets this map."""
  pairs = ", ".join(f"{a}: {b}" for a, b in sorted(label_map.items()))
  return f"--config.data.label_map='{{{pairs}}}'"


def rewrite(
  ids: Integer[np.ndarray, "h w"], label_map: dict[int, int], dtype: np.dtype
) -> Integer[np.ndarray, "h w"]:
  """Applies a label map; ids that are not in the map stay as they are."""
  result = ids.astype(np.int64)
  for old, new in label_map.items():
    result[ids == old] = new
  return result.astype(dtype)
