"""Fills the variables of a network from named arrays, without guessing.

`fill` looks up each array of a network by its exact name. Arrays that are
missing, unexpected or mis-shaped are printed as one table and raise an error.
A successful load prints one line.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import re
from typing import Any

import numpy as np

from jaxseg.errors import UserError
from jaxseg.weights import report
from jaxseg.weights.layouts import adapt_input_channels
from jaxseg.weights.paths import without_collection
from jaxseg.weights.report import Mismatch


@dataclasses.dataclass(frozen=True)
class Entry:
  """The entry of a weight file that belongs to a path of the network.

  Attributes:
    name: Name of the array in the file.
    convert: Function that converts the file's array to jaxseg's layout.
  """

  name: str
  convert: Callable[[np.ndarray], np.ndarray] = np.asarray


def skip_predicate(
  patterns: Iterable[str],
  paths: Iterable[str],
  skip_option: str = report.SKIP_ARGUMENT,
) -> Callable[[str], bool]:
  """Returns a function of a path that returns whether to leave it out.

  Args:
    patterns: Regular expressions. A path that contains a match of any of them
      is left out.
    paths: All paths of the network, with their collections.
    skip_option: How the user gives a pattern, which stands for {}.

  Raises:
    UserError: A pattern is not a regular expression or matches no path, or the
      patterns match all paths.
  """
  compiled = []
  paths = [without_collection(path) for path in paths]
  for pattern in patterns:
    try:
      compiled.append(re.compile(pattern))
    except re.error as error:
      raise UserError(
        f"{skip_option.format(pattern)}: not a regular expression ({error})"
      ) from None
    if not any(compiled[-1].search(path) for path in paths):
      tops = ", ".join(sorted({path.split("/")[0] for path in paths}))
      raise UserError(
        f"{skip_option.format(pattern)}: matches no parameter path; paths "
        f"begin with {tops}"
      )

  def is_skipped(path: str) -> bool:
    path = without_collection(path)
    return any(pattern.search(path) for pattern in compiled)

  if compiled and all(map(is_skipped, [f"params/{path}" for path in paths])):
    options = " ".join(skip_option.format(p.pattern) for p in compiled)
    raise UserError(
      f"{options}: matches every parameter path, which leaves nothing to load; "
      "shorten it"
    )
  return is_skipped


def fill(
  expected: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
  find_entry: Callable[[str], Entry | None],
  *,
  label: str,
  is_skipped: Callable[[str], bool],
  may_remain: Callable[[str], bool] = lambda name: False,
  input_kernel: str = "",
  skip_option: str = report.SKIP_ARGUMENT,
) -> dict[str, np.ndarray]:
  """Converts `arrays` into all `expected` arrays that are not skipped.

  Args:
    expected: Paths of the network, and arrays or anything else with a shape
      and a dtype.
    arrays: Names and arrays of the weight file.
    find_entry: Function that returns the entry of the file that belongs to a
      path, or None if the file's library has no such array.
    label: "FILE into NETWORK", the beginning of every message.
    is_skipped: Function that returns whether a path is left out.
    may_remain: Function that returns whether an array of the file may remain
      unused.
    input_kernel: Path of the kernel of the convolution that reads the image.
      Only this kernel may have another number of input channels, see
      `layouts.adapt_input_channels`.
    skip_option: As in `skip_predicate`.

  Returns:
    Paths, and NumPy arrays of the expected shapes and dtypes.

  Raises:
    UserError: Arrays are missing, unexpected or mis-shaped. A table of them
      is printed first.
  """
  filled, mismatches, used, notes = {}, [], set(), []
  for path in _parameters_first(expected):
    entry = find_entry(path)
    if entry is not None:
      used.add(entry.name)
    if is_skipped(path):
      continue
    if entry is None or entry.name not in arrays:
      wanted = "" if entry is None else entry.name
      mismatches.append(Mismatch.missing(path, wanted))
      continue
    value, shape = _converted(entry, arrays[entry.name]), expected[path].shape
    if path == input_kernel and value.ndim == 4 and value.shape != shape:
      notes.append(
        f"input channels adapted from {value.shape[2]} to {shape[2]}"
      )
      value = adapt_input_channels(value, shape[2])
    if value.shape != shape:
      mismatches.append(Mismatch.misshaped(path, value.shape, shape))
    else:
      filled[path] = value.astype(expected[path].dtype)
  unused = [name for name in arrays if name not in used]
  mismatches += [
    Mismatch.unexpected(name, arrays[name].shape)
    for name in unused
    if not may_remain(name)
  ]
  if mismatches:
    report.print_mismatches(label, mismatches, unused)
    raise UserError(
      report.summarise(label, mismatches, len(expected), skip_option)
    )
  report.print_loaded(label, filled, expected, notes)
  return filled


def _parameters_first(paths: Iterable[str]) -> list[str]:
  """Puts parameters before batch statistics, because users know them."""
  return sorted(paths, key=lambda path: not path.startswith("params/"))


def _converted(entry: Entry, value: np.ndarray) -> np.ndarray:
  try:
    return entry.convert(value)
  except ValueError:
    # The number of axes is wrong; `fill` reports the shape.
    return value
