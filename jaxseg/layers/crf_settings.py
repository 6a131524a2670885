"""Settings of a dense CRF, with the published numbers.

The symbols are those of `dense_crf.py`: w1, sa and sb of the bilateral kernel,
w2 and sg of the spatial one.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from jaxseg.errors import UserError, unknown_name

NORMALISATIONS = ("none", "before", "after", "symmetric")
FILTERS = ("lattice", "exact")

# Strength of a kernel, one of
# - a number w: a Potts model, with energy -w where labels agree
#   (pydensecrf's PottsCompatibility);
# - a vector v: energy v(l) where both labels are l; negative values attract
#   (DiagonalCompatibility);
# - a matrix mu(l, l'), which is symmetrised (MatrixCompatibility).
Weight = float | int | tuple[float, ...] | tuple[tuple[float, ...], ...]
Std = float | int | tuple[float | int, ...]


@dataclasses.dataclass(frozen=True)
class CRF:
  """Settings of a dense CRF; hashable. The defaults are pydensecrf's example.

  Attributes:
    iterations: Mean-field iterations; 0 leaves the probabilities unchanged.
    spatial_weight: Strength w2 of the spatial kernel, see `Weight`.
    spatial_std: Standard deviation sg in pixels, one number or (y, x).
    bilateral_weight: Strength w1 of the bilateral kernel, see `Weight`.
    bilateral_std: Standard deviation sa in pixels, one number or (y, x).
    colour_std: Standard deviation sb in units of 0..255, one number or one for
      each channel.
    normalisation: Normalisation of each kernel: "none", "before" or "after"
      filtering by 1 / n, or "symmetric" by 1 / sqrt(n) on both sides.
    filter: Gaussian filter, "lattice" or "exact". The time of "exact" grows
      with the square of the number of pixels.
  """

  iterations: int = 5
  spatial_weight: Weight = 3.0
  spatial_std: Std = 3.0
  bilateral_weight: Weight = 10.0
  bilateral_std: Std = 80.0
  colour_std: Std = 13.0
  normalisation: str = "symmetric"
  filter: str = "lattice"

  def __post_init__(self):
    if self.iterations < 0:
      raise UserError(
        f"CRF: iterations={self.iterations}; expected 0 or more (5 to 10 are "
        "usual)"
      )
    for name in ("spatial_std", "bilateral_std", "colour_std"):
      stds = getattr(self, name)
      # NaN fails these comparisons too.
      if not all(0 < std < math.inf for std in np.atleast_1d(stds)):
        raise UserError(f"CRF: {name}={stds}; expected a finite number above 0")
      if name != "colour_std" and np.size(stds) not in (1, 2):
        raise UserError(f"CRF: {name}={stds}; expected one number or (y, x)")
    for name in ("spatial_weight", "bilateral_weight"):
      _check_weight(name, getattr(self, name))
    if self.normalisation not in NORMALISATIONS:
      raise unknown_name(
        "CRF normalisation", self.normalisation, NORMALISATIONS
      )
    if self.filter not in FILTERS:
      raise unknown_name("CRF filter", self.filter, FILTERS)

  def __str__(self) -> str:
    parts = [
      f"{field.name}={_text(getattr(self, field.name))}"
      for field in dataclasses.fields(self)
    ]
    return f"CRF ({', '.join(parts)})"


def _check_weight(name: str, weight: Weight) -> None:
  try:
    array = np.asarray(weight, np.float32)
  except ValueError:  # A ragged matrix.
    array = np.full((1, 1, 1), np.nan)
  square = array.ndim < 2 or (array.ndim == 2 and len(set(array.shape)) == 1)
  if not square or not np.isfinite(array).all():
    raise UserError(
      f"CRF: {name}={weight}; expected a finite number, one for each class, or "
      "a square matrix of them"
    )


def _text(value: Any) -> str:
  """Formats a field as `parse` reads it."""
  if isinstance(value, tuple):
    return "x".join(map(_text, value))
  return value if isinstance(value, str) else f"{value:g}"


def _published(w1: float, sa: float, sb: float, sg: float = 3.0) -> CRF:
  return CRF(
    iterations=10,
    spatial_std=sg,
    bilateral_weight=w1,
    bilateral_std=sa,
    colour_std=sb,
  )


# Published settings (w1, sa, sb); all have w2 = 3.
# - "dense_inference": defaults of the tool of Chen et al. 2015 (DeepLab).
# - "deeplab_v1...": parameters released with each of their variants.
# - "deeplab_v2": parameters of the ResNet port, whose sg is 1.
# - "deconvnet": inference code of Noh et al. 2015 (DeconvNet).
SETTINGS = {
  "pydensecrf": CRF(),
  "dense_inference": _published(10.0, 60.0, 20.0),
  "deeplab_v1": _published(5.0, 50.0, 10.0),
  "deeplab_v1_msc": _published(3.0, 95.0, 3.0),
  "deeplab_v1_coco": _published(5.0, 67.0, 3.0),
  "deeplab_v1_largefov": _published(4.0, 121.0, 5.0),
  "deeplab_v1_msc_largefov": _published(4.0, 83.0, 5.0),
  "deeplab_v1_coco_largefov": _published(5.0, 69.0, 5.0),
  "deeplab_v1_msc_largefov_coco": _published(4.0, 59.0, 5.0),
  "deeplab_v2": _published(4.0, 67.0, 3.0, sg=1.0),
  "deconvnet": _published(5.0, 20.0, 3.0),
}


def parse(text: str) -> CRF | None:
  """Parses "NAME", "key=value,..." or "NAME,key=value,..."; "" means no CRF.

  Without a name, the keys change the defaults of `CRF`. Bandwidths that differ
  by axis or channel are joined by "x", for example
  "deeplab_v2,iterations=5,colour_std=3x3x5".

  Raises:
    UserError: A name or key is unknown, or a value cannot be parsed.
  """
  words = [word.strip() for word in text.split(",")]
  if words == [""]:
    return None
  name = "pydensecrf" if "=" in words[0] else words.pop(0)
  if name not in SETTINGS:
    raise unknown_name("eval.crf", name, SETTINGS)
  fields = {}
  for word in words:
    key, equals, value = word.partition("=")
    if key not in _READERS:
      raise unknown_name("key of eval.crf", key, _READERS)
    expected, read = _READERS[key]
    try:
      fields[key] = read(value)
    except ValueError:
      seen = f"{key}={value}" if equals else key
      raise UserError(f"eval.crf: {seen}; expected {key}={expected}") from None
  return dataclasses.replace(SETTINGS[name], **fields)


def _stds(text: str) -> Std:
  numbers = tuple(float(word) for word in text.split("x"))
  return numbers if len(numbers) > 1 else numbers[0]


# Maps each key to a description of its values and to their parser.
_READERS = {
  "iterations": ("NUMBER", int),
  "spatial_weight": ("NUMBER", float),
  "spatial_std": ("NUMBER, or YxX", _stds),
  "bilateral_weight": ("NUMBER", float),
  "bilateral_std": ("NUMBER, or YxX", _stds),
  "colour_std": ("NUMBER, or RxGxB", _stds),
  "normalisation": (" or ".join(NORMALISATIONS), str),
  "filter": (" or ".join(FILTERS), str),
}
