"""Turns files into placed examples, for both loaders.

`fingerprint` identifies the examples. Any change of a file, of the canvas or of
the label map changes it, so prepared examples are never stale and never
overwritten by those of other settings.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import json

import numpy as np

from jaxseg.data import audit, progress
from jaxseg.data.placement import Placement
from jaxseg.data.sources import Source
from jaxseg.errors import UserError

# Increase it when the same files and placement give different examples, or when
# the fields of the counts in the metadata change.
_VERSION = 3


def fingerprint(source: Source, placement: Placement) -> str:
  """Returns a name that changes whenever the prepared examples may change."""
  parts = [_VERSION, dataclasses.asdict(placement), source.stamp]
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def generate(
  source: Source, split: str, placement: Placement, dtype: np.dtype
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the placed examples of a split, in order.

  Raises:
    UserError: Files could not be decoded. It is raised after the last example
      and counts all of these files.
  """
  problems: list[str] = []

  def read_and_place(index: int) -> dict[str, np.ndarray] | UserError:
    try:
      image, ids = source.read(split, index)
    except UserError as error:
      return error
    try:
      return placement.place(image, ids, dtype)
    except UserError as error:
      return UserError(f"{source.name(split, index)}: {error}")

  count = len(source.splits[split])
  title = f"reading {split} examples"
  for result in progress.in_order(read_and_place, count, title=title):
    if isinstance(result, UserError):
      problems.append(str(result))
    else:
      yield result
  if error := audit.problems_error(problems, count):
    raise error
