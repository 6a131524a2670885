"""Messages about a load: a table of mismatches, or one line of success."""

from collections.abc import Iterable, Mapping, Sequence
import difflib
import math
import sys
from typing import Any, NamedTuple

from jaxseg.weights.paths import without_collection

# Number of rows of each kind in the table; the others are counted.
MAX_ROWS = 12
KINDS = ("missing", "unexpected", "mis-shaped")
# How a pattern of paths to leave out, {}, is given in Python, to
# `jaxseg convert` and in a configuration.
SKIP_ARGUMENT = "skip=('{}',)"
SKIP_FLAG = "--skip={}"
SKIP_FIELD = "--config.init.skip=\"('{}',)\""
NOT_IN_LIBRARY = "not part of this library's network"


class Mismatch(NamedTuple):
  """One array of the network or of the file that does not match.

  Attributes:
    kind: One of `KINDS`.
    name: Path in the network, without collection. For an unexpected array,
      its name in the file.
    note: Explanation in the last column of the table.
    wanted: Name that a missing array has in the library; "" for any other
      mismatch.
  """

  kind: str
  name: str
  note: str
  wanted: str = ""

  @classmethod
  def missing(cls, path: str, wanted: str) -> "Mismatch":
    """Reports an array of the network that the file or its library lacks."""
    note = f"needs {wanted}" if wanted else NOT_IN_LIBRARY
    return cls("missing", without_collection(path), note, wanted)

  @classmethod
  def unexpected(cls, name: str, shape: Sequence[int]) -> "Mismatch":
    """Reports an array of the file that the network lacks."""
    return cls("unexpected", name, str(tuple(shape)))

  @classmethod
  def misshaped(
    cls, path: str, in_file: Sequence[int], here: Sequence[int]
  ) -> "Mismatch":
    """Reports an array of different shapes in the file and the network."""
    note = f"file {tuple(in_file)}, here {tuple(here)}"
    return cls("mis-shaped", without_collection(path), note)


def print_mismatches(
  label: str, mismatches: Sequence[Mismatch], unused: Sequence[str]
) -> None:
  """Prints an aligned table of the first `MAX_ROWS` rows of each kind.

  Args:
    label: "FILE into NETWORK".
    mismatches: All of them.
    unused: Names of the file that belong to no path of the network. The most
      similar one is shown next to each missing name.
  """
  shown = []
  for kind in KINDS:
    of_kind = [row for row in mismatches if row.kind == kind]
    shown += of_kind[:MAX_ROWS]
    if len(of_kind) > MAX_ROWS:
      hidden = len(of_kind) - MAX_ROWS
      shown.append(Mismatch(kind, f"... and {hidden} more", ""))
  width = max(len(row.name) for row in shown)
  lines = [f"{label}: these arrays do not match"]
  for row in shown:
    similar = ""
    if row.wanted:
      for name in difflib.get_close_matches(row.wanted, unused, 1):
        similar = f" (the file has {name})"
    line = f"  {row.kind:<10}  {row.name:<{width}}  {row.note}{similar}"
    lines.append(line.rstrip())
  print("\n".join(lines), file=sys.stderr, flush=True)


def summarise(
  label: str, mismatches: Sequence[Mismatch], total: int, skip_option: str
) -> str:
  """Returns one line with the number of mismatches and the likely fix.

  Args:
    label: "FILE into NETWORK".
    mismatches: All of them.
    total: Number of arrays of the network.
    skip_option: How the user leaves out the paths that match {}.
  """
  kinds = [row.kind for row in mismatches]
  counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS)
  fix = _fix(mismatches, total, skip_option)
  return f"{label}: {counts} of {total} arrays; {fix}"


def _fix(mismatches: Sequence[Mismatch], total: int, skip_option: str) -> str:
  kinds = [row.kind for row in mismatches]
  layers = {row.name.rpartition("/")[0] for row in mismatches}
  names = {layer.rpartition("/")[2] for layer in layers}
  outside = not any(layer.startswith("backbone/") for layer in layers)
  if set(kinds) == {"mis-shaped"} and len(names) == 1 and outside:
    (layer,) = names
    return (
      f"if the number of classes differs, leave {layer!r} fresh with "
      f"{skip_option.format(layer)}"
    )
  if all(row.note == NOT_IN_LIBRARY for row in mismatches):
    part = skip_option.format("REGEX")
    return f"see the table above; leave parts of the network out with {part}"
  if len(kinds) - kinds.count("unexpected") > total / 2:
    return "the file holds another network, or one of another width"
  return "see the table above"


def print_loaded(
  label: str,
  filled: Mapping[str, Any],
  expected: Mapping[str, Any],
  notes: Iterable[str],
) -> None:
  """Prints how many arrays and parameters were loaded, in one line.

  Args:
    label: "FILE into NETWORK".
    filled: Paths that were loaded.
    expected: All paths of the network and their arrays.
    notes: Additions to the line.
  """
  loaded, total = _parameters(filled, expected), _parameters(expected, expected)
  line = (
    f"{label}: loaded {len(filled)} of {len(expected)} arrays, "
    f"{loaded:,} of {total:,} parameters ({loaded / max(total, 1):.1%})"
  )
  left = [path for path in expected if path not in filled]
  if left:
    tops = sorted({without_collection(path).split("/")[0] for path in left})
    line += f"; not loaded: {', '.join(tops)} ({len(left)} arrays)"
  print("; ".join([line, *notes]), flush=True)


def _parameters(paths: Iterable[str], expected: Mapping[str, Any]) -> int:
  return sum(
    math.prod(expected[path].shape)
    for path in paths
    if path.startswith("params/")
  )
