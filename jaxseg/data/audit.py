"""Checks every mask before anything is prepared or trained.

One pass over the masks, and over the headers of their images, counts the
pixels of each id. The counts give the number of classes of a folder that names
none, and show ids that are not a class. Such ids must be refused: in JAX, an
id that is too large gives NaN or is dropped silently, and -1 trains the last
class.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from jaxseg.data import labels, notes, progress
from jaxseg.data.placement import Placement
from jaxseg.data.sources import Source
from jaxseg.errors import UserError

# Masks with more ids than this on average contain grey levels or instances.
_MAX_MEAN_IDS = 32


@dataclasses.dataclass(frozen=True)
class IdCount:
  """Occurrences of one id in a split, after the label map was applied.

  Attributes:
    pixels: Number of pixels with this id.
    masks: Number of masks with this id.
    area: Number of all pixels of these masks.
    first: Name of the first of these masks.
  """

  pixels: int
  masks: int
  area: int
  first: str


# Split -> id -> its occurrences.
Counts = dict[str, dict[int, IdCount]]


def problems_error(problems: Sequence[str], total: int) -> UserError | None:
  """Returns an error with the first problem and the number of problems.

  Args:
    problems: One line for each file that has a problem.
    total: Number of files that were checked.
  """
  if not problems:
    return None
  more = f" ({len(problems)} such files among {total})"
  return UserError(problems[0] + (more if len(problems) > 1 else ""))


def count_ids(source: Source, placement: Placement) -> Counts:
  """Counts the ids of all masks, after the placement's label map.

  Args:
    source: The original files of the data set.
    placement: Label map, and placement of examples on the canvas.

  Returns:
    The occurrences of each id in each split.

  Raises:
    UserError: Masks cannot be read, hold colours, or do not have the size of
      their image.
  """
  label_map = dict(placement.label_map)
  counts: Counts = {}
  problems: list[str] = []
  total = 0
  for split, examples in source.splits.items():
    total += len(examples)
    found: dict[int, IdCount] = {}

    def histogram(index: int, split: str = split):
      try:
        return _histogram(source.ids(split, index))
      except UserError as error:
        return error

    title = f"checking {split} masks"
    results = progress.in_order(histogram, len(examples), title=title)
    for index, result in enumerate(results):
      if isinstance(result, UserError):
        problems.append(str(result))
      else:
        _add(found, result, label_map, source.mask_name(split, index))
    counts[split] = dict(sorted(found.items()))
  if error := problems_error(problems, total):
    raise error
  return counts


def _histogram(ids: np.ndarray) -> dict[int, int]:
  if ids.dtype.kind == "u":
    pixels = np.bincount(ids.ravel())
    values = np.flatnonzero(pixels)
    pixels = pixels[values]
  else:
    values, pixels = np.unique(ids, return_counts=True)
  return dict(zip(values.tolist(), pixels.tolist(), strict=True))


def _add(
  found: dict[int, IdCount],
  histogram: dict[int, int],
  label_map: dict[int, int],
  name: str,
) -> None:
  mapped: dict[int, int] = {}
  for old, pixels in histogram.items():
    new = label_map.get(old, old)
    mapped[new] = mapped.get(new, 0) + pixels
  area = sum(mapped.values())
  for i, pixels in mapped.items():
    seen = found.get(i, IdCount(0, 0, 0, name))
    found[i] = IdCount(
      seen.pixels + pixels, seen.masks + 1, seen.area + area, seen.first
    )


def median_frequency(
  counts: Mapping[int, IdCount], num_classes: int
) -> tuple[float, ...]:
  """Returns class weights median(f) / f[c] for frequencies f of the classes.

  The frequency of a class is its share of the pixels of all images that
  contain it (Eigen & Fergus 2015, arXiv:1411.4734, and SegNet).

  Args:
    counts: Occurrences of the ids of a split.
    num_classes: Number of classes.

  Returns:
    The weight of each class. A class that never occurs has weight 1 and does
    not change the median.
  """
  frequency = {
    i: counts[i].pixels / counts[i].area
    for i in range(num_classes)
    if i in counts
  }
  median = float(np.median(list(frequency.values()) or [1.0]))
  return tuple(
    median / frequency[i] if i in frequency else 1.0 for i in range(num_classes)
  )


def check_ids(
  counts: Counts, num_classes: int, placement: Placement, naming: str = ""
) -> None:
  """Raises UserError for ids that are neither a class nor the ignore label.

  Args:
    counts: Occurrences of the ids in the masks.
    num_classes: Number of classes.
    placement: Placement whose label map was counted with.
    naming: How the ids can become classes, or "" if the classes are fixed.
  """
  ignore = placement.ignore_label
  if _is_binary(counts, placement):
    raise _binary_error(placement)
  ids = _all_ids(counts)
  outside = [i for i in ids if not 0 <= i < num_classes and i != ignore]
  if not outside:
    return
  flag = _flag(placement, {i: ignore for i in outside})
  raise UserError(
    f"label ids {_listed(outside)} are outside 0..{num_classes - 1} and are not"
    f" data.ignore_label={ignore}: {_where(counts, outside)}; to ignore them"
    f" pass {flag}{naming and ', or '}{naming}"
  )


def discover_classes(
  counts: Counts, placement: Placement, naming: str = ""
) -> int:
  """Returns the number of classes of a data set without class names.

  This is the highest id plus one.

  Args:
    counts: Occurrences of the ids in the masks.
    placement: Placement whose label map was counted with.
    naming: How the classes can be named, for messages.

  Raises:
    UserError: The ids do not look like classes 0, 1, 2, ..., K-1.
  """
  ignore = placement.ignore_label
  ids = _all_ids(counts)
  seen = [i for i in ids if i != ignore]
  if _is_binary(counts, placement):
    raise _binary_error(placement)
  if not seen or seen == [0]:
    raise UserError(
      f"the masks hold no id but {_listed(ids)} (first: {_first(counts)}),"
      " so there is nothing to learn; expected class ids 0, 1, 2, ..."
    )
  if seen[0] < 0:
    flag = _flag(placement, {i: ignore for i in seen if i < 0})
    raise UserError(
      f"label id {seen[0]} is negative: {_where(counts, seen[:1])}; expected"
      f" class ids 0, 1, 2, ...; to ignore it pass {flag}"
    )
  _refuse_grey(counts)
  classes = _dense(sorted({*seen, ignore}))
  if classes and ignore < classes[-1]:
    raise _ignored_class_error(placement, classes)
  if stray := seen[len(_dense(seen)) :]:
    raise _stray_error(counts, placement, seen, stray, naming)
  return seen[-1] + 1


def _dense(ids: Sequence[int]) -> Sequence[int]:
  """Returns the first ids, as many as fill more than half of 0..last."""
  lengths = [k for k in range(1, len(ids) + 1) if 2 * k > ids[k - 1]]
  return ids[: max(lengths, default=0)]


def _ignored_class_error(
  placement: Placement, classes: Sequence[int]
) -> UserError:
  """Returns an error about an ignore label between the ids of the classes."""
  ignore = placement.ignore_label
  free = 255 if classes[-1] < 255 else 65535
  shift = {i: i - 1 for i in classes if i > ignore}
  other = f"--config.data.ignore_label={free}"
  return UserError(
    f"data.ignore_label={ignore} lies among the class ids 0..{classes[-1]} of"
    f" the masks; if id {ignore} is a class, pass {other}; to ignore it, pass"
    f" {other} {_flag(placement, {ignore: free, **shift})}"
  )


def _stray_error(
  counts: Counts,
  placement: Placement,
  seen: Sequence[int],
  stray: Sequence[int],
  naming: str,
) -> UserError:
  """Returns an error about ids far above the others.

  Args:
    counts: Occurrences of the ids in the masks.
    placement: Placement whose label map was counted with.
    seen: All ids but the ignore label.
    stray: The last of them, far above the others.
    naming: How the classes can be named.
  """
  ignore = placement.ignore_label
  advice = []
  if len(seen) - len(stray) > 1:
    flag = _flag(placement, dict.fromkeys(stray, ignore))
    if stray == [65535] and ignore not in _all_ids(counts):
      flag = "--config.data.ignore_label=65535"
    advice.append(f"to ignore {_listed(stray)} pass {flag}")
  flag = _flag(placement, {old: new for new, old in enumerate(seen)})
  advice.append(f"if each id is a class, pass {flag}")
  if naming:
    advice.append(naming)
  return UserError(
    f"the masks hold the ids {_listed(seen)}, not 0, 1, 2, ...:"
    f" {_where(counts, stray)}; {', or '.join(advice)}"
  )


def report_guess(counts: Counts, num_classes: int, naming: str) -> None:
  """Reports a number of classes that `discover_classes` has guessed."""
  ids = set(_all_ids(counts))
  missing = [i for i in range(num_classes) if i not in ids]
  gaps = f" (no mask holds {_listed(missing)})" if missing else ""
  notes.note(
    f"{num_classes} classes, guessed from the highest id in the masks{gaps}"
    f"{naming and '; '}{naming}"
  )


def _refuse_grey(counts: Counts) -> None:
  """Raises UserError if masks have as many ids as grey-level images."""
  masks = sum(max(c.masks for c in s.values()) for s in counts.values() if s)
  mean = sum(c.masks for s in counts.values() for c in s.values()) / masks
  if mean > _MAX_MEAN_IDS:
    raise UserError(
      f"the masks hold {mean:.0f} different ids each (first:"
      f" {_first(counts)}), like photographs, instance masks, and masks"
      " damaged by lossy compression or smooth resizing; expected class ids 0,"
      " 1, 2, ...: export the masks again, or name the classes in"
      " data.class_names"
    )


def label_dtype(counts: Counts, ignore_label: int) -> np.dtype:
  """Returns the smallest integer type that holds every id."""
  return np.dtype(np.min_scalar_type(max(ignore_label, *_all_ids(counts))))


def _all_ids(counts: Counts) -> list[int]:
  return sorted({i for split in counts.values() for i in split})


def _is_binary(counts: Counts, placement: Placement) -> bool:
  """Returns whether the files hold only 0 and 255, probably a foreground."""
  mapped_to_255 = 255 in dict(placement.label_map).values()
  return _all_ids(counts) in ([0, 255], [255]) and not mapped_to_255


def _binary_error(placement: Placement) -> UserError:
  return UserError(
    "the masks hold only the ids 0 and 255; a foreground of 255 would be"
    " treated as ignored pixels. If 255 is a class, pass"
    f" {_flag(placement, {255: 1})}"
  )


def _first(counts: Counts) -> str:
  return next(c.first for s in counts.values() for c in s.values())


def _where(counts: Counts, ids: Sequence[int]) -> str:
  """Describes the occurrences of the first three ids."""
  parts = []
  for i in ids[:3]:
    hits = [split[i] for split in counts.values() if i in split]
    pixels, masks = sum(h.pixels for h in hits), sum(h.masks for h in hits)
    parts.append(
      f"id {i} in {pixels} pixels of {masks} masks (first: {hits[0].first})"
    )
  return ", ".join(parts) + (", ..." if len(ids) > 3 else "")


def _flag(placement: Placement, extra: dict[int, int]) -> str:
  """Returns the flag that sets the current label map with `extra` after it."""
  old = {a: extra.get(b, b) for a, b in placement.label_map}
  both = {**extra, **old}
  return labels.format_label_map({a: b for a, b in both.items() if a != b})


def _listed(ids: Sequence[int]) -> str:
  shown = ", ".join(map(str, ids[:12]))
  return f"[{shown}{', ...' if len(ids) > 12 else ''}]"
