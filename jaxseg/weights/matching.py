"""Filling variables from named arrays, without ever guessing.

`fill` asks for every array of a network by name. What is missing, what is
left over and what has another shape become one aligned report and an error;
what was loaded is always said in one line.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import difflib
import re
import sys
from typing import Any

import numpy as np

from jaxseg.errors import UserError
from jaxseg.weights.layouts import adapt_input

# How many rows of the report a person reads.
ROWS = 12
UNKNOWN = "is not in this source"
KINDS = ("missing", "unexpected", "mis-shaped")


@dataclasses.dataclass(frozen=True)
class Source:
  """Where one of our arrays comes from: their name, and what to do with it."""

  name: str
  convert: Callable[[np.ndarray], np.ndarray] = np.asarray


def skipper(patterns: Iterable[str], paths: Iterable[str]):
  """A predicate: is a path left fresh, because a pattern occurs in it?

  Raises:
    UserError: a pattern that is no regular expression or occurs nowhere.
  """
  compiled = []
  paths = [without_collection(path) for path in paths]
  for pattern in patterns:
    try:
      compiled.append(re.compile(pattern))
    except re.error as error:
      raise UserError(
        f"skip={pattern!r}: not a regular expression ({error})"
      ) from None
    if not any(compiled[-1].search(path) for path in paths):
      tops = ", ".join(sorted({path.split("/")[0] for path in paths}))
      raise UserError(
        f"skip={pattern!r}: no parameter path contains it; paths begin with "
        f"{tops}"
      )

  def skipped(path: str) -> bool:
    path = without_collection(path)
    return any(pattern.search(path) for pattern in compiled)

  return skipped


def without_collection(path: str) -> str:
  """`params/head/kernel` -> `head/kernel`."""
  return path.partition("/")[2]


def fill(
  expected: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
  source: Callable[[str], Source | None],
  *,
  label: str,
  skip: Callable[[str], bool],
  ignore: Callable[[str], bool] = lambda name: False,
  first: str = "",
) -> dict[str, np.ndarray]:
  """Converts `arrays` into all of `expected` that is not skipped.

  Args:
    expected: our paths and anything with a shape and dtype.
    arrays: their names and arrays.
    source: which of `arrays` belongs at one of our paths; None if none does.
    label: "FILE into NETWORK", for the messages.
    skip: whether one of our paths is left out.
    ignore: whether one of their names may be left over.
    first: path of the convolution that reads the image; it alone may have
      another number of input channels, see `layouts.adapt_input`.

  Returns:
    Our paths and NumPy arrays of the expected shapes and dtypes.

  Raises:
    UserError: anything missing, left over or of another shape; the report is
      printed first.
  """
  filled, rows, used, notes = {}, [], set(), []
  # Parameters first: a report should begin with what a person knows.
  for path in sorted(expected, key=lambda path: path.split("/")[0] != "params"):
    want, found = expected[path], source(path)
    used.add(found and found.name)
    if skip(path):
      continue
    here = without_collection(path)
    if found is None or found.name not in arrays:
      asks = f"asks for {found.name}" if found else UNKNOWN
      rows.append(("missing", here, asks))
      continue
    value = _converted(found, arrays[found.name])
    if path == first and value.ndim == 4 and value.shape != want.shape:
      notes.append(f"{value.shape[2]} input channels made {want.shape[2]}")
      value = adapt_input(value, want.shape[2])
    if value.shape != want.shape:
      shapes = f"file {value.shape}, here {want.shape}"
      rows.append(("mis-shaped", here, shapes))
    else:
      filled[path] = value.astype(want.dtype)
  rows += [
    ("unexpected", name, str(arrays[name].shape))
    for name in arrays
    if name not in used and not ignore(name)
  ]
  if rows:
    _print_report(label, rows, arrays, used)
    raise UserError(_summary(label, rows, expected))
  print("; ".join([_loaded(label, filled, expected), *notes]), flush=True)
  return filled


def _converted(found: Source, value: np.ndarray) -> np.ndarray:
  try:
    return found.convert(value)
  except ValueError:  # Another number of axes: the shapes tell.
    return value


def _print_report(label: str, rows, arrays, used) -> None:
  """The aligned table; of each kind the first few rows, then a count."""
  shown = []
  for kind in KINDS:
    of_kind = [row for row in rows if row[0] == kind]
    shown += of_kind[:ROWS]
    if len(of_kind) > ROWS:
      shown.append((kind, f"... and {len(of_kind) - ROWS} more", ""))
  left = [name for name in arrays if name not in used]
  width = max(len(name) for _, name, _ in shown)
  lines = [f"{label}: these do not fit"]
  for kind, name, note in shown:
    asked = note.removeprefix("asks for ")
    close = difflib.get_close_matches(asked, left, 1) if asked != note else []
    guess = f" (the file has {close[0]})" if close else ""
    lines.append(f"  {kind:<10}  {name:<{width}}  {note}{guess}".rstrip())
  print("\n".join(lines), file=sys.stderr, flush=True)


def _summary(label: str, rows, expected) -> str:
  kinds = [kind for kind, _, _ in rows]
  counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS)
  fix = "see the table above"
  tops = {name.split("/")[0] for kind, name, _ in rows if kind == "mis-shaped"}
  if set(kinds) == {"mis-shaped"} and len(tops) == 1 and "backbone" not in tops:
    wrong = next(iter(tops))
    fix = (
      f"another number of classes? leave {wrong!r} fresh with skip=({wrong!r},)"
    )
  elif all(note == UNKNOWN for _, _, note in rows):
    fix = "see the table above; leave parts of the network fresh with skip"
  elif len(kinds) - kinds.count("unexpected") > len(expected) / 2:
    fix = "the file is of another network, or of another width"
  return f"{label}: {counts} of {len(expected)} arrays; {fix}"


def _loaded(label: str, filled, expected) -> str:
  def count(paths):
    return sum(
      int(np.prod(expected[path].shape))
      for path in paths
      if path.startswith("params/")
    )

  total = count(expected)
  fresh = [path for path in expected if path not in filled]
  line = (
    f"{label}: loaded {len(filled)} of {len(expected)} arrays, "
    f"{count(filled):,} of {total:,} parameters "
    f"({count(filled) / max(total, 1):.1%})"
  )
  if fresh:
    tops = sorted({without_collection(path).split("/")[0] for path in fresh})
    line += f"; fresh: {', '.join(tops)} ({len(fresh)} arrays)"
  return line
