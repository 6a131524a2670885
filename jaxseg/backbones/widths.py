"""The rounding rule of MobileNetV2's and EfficientNet's scaled widths.

Both papers' code scales the number of features by a factor and rounds it to a
multiple of 8 (torchvision, models/_utils.py, `_make_divisible`).
"""


def round_width(features: int | float) -> int:
  """Returns the nearest multiple of 8 that is at least 90 % of `features`."""
  rounded = max(8, int(features + 4) // 8 * 8)
  return rounded if rounded >= 0.9 * features else rounded + 8
