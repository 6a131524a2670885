"""Files to placed examples: the way both loaders share.

`fingerprint` names the outcome: any change of a file, of the canvas or of the
label map gives another name, so prepared data are never stale and never
overwritten by those of another setting.
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

# Raise it when the same files and placement give other examples, or the counts
# kept beside them other fields.
_VERSION = 2


def fingerprint(source: Source, placement: Placement) -> str:
  """A short name that differs whenever the prepared examples may."""
  parts = [_VERSION, dataclasses.asdict(placement), source.stamp]
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def generate(
  source: Source, split: str, placement: Placement, dtype: np.dtype
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the placed examples of a split, in order.

  Raises:
    UserError: after the last one, if files could not be decoded.
  """
  problems: list[str] = []

  def make(index: int):
    try:
      image, ids = source.read(split, index)
    except UserError as error:
      return error
    return placement.make(image, ids, dtype)

  count = len(source.splits[split])
  for made in progress.in_order(make, count, title=f"reading {split} examples"):
    if isinstance(made, UserError):
      problems.append(str(made))
    else:
      yield made
  if error := audit.problems_error(problems, count):
    raise error
