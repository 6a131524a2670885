"""Rules for the values of configuration fields.

A rule is a frozen dataclass. `accepts(value)` returns whether a field may have
the value, and `expected` describes the values that it may have, as the end of a
sentence that starts with "expected". `jaxseg/config_check.py` has the rule of
each field.
"""

from collections.abc import Mapping
import dataclasses
import math
import re
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Rule(Protocol):
  """Rule for the value of a field."""

  @property
  def expected(self) -> str:
    """Describes the accepted values."""

  def accepts(self, value: Any) -> bool:
    """Returns whether a field may have this value."""


@dataclasses.dataclass(frozen=True)
class Number:
  """A finite number.

  Attributes:
    low: Smallest number.
    high: Largest number.
    above: Whether `low` itself is refused.
    below: Whether `high` itself is refused.
    example: A usual value.
    hint: Advice that follows the description.
  """

  low: int | float = -math.inf
  high: int | float = math.inf
  above: bool = False
  below: bool = False
  example: int | float | None = None
  hint: str = ""

  @property
  def expected(self) -> str:
    if not self.above and not self.below and self.high - self.low < math.inf:
      text = f"a number from {self.low:,} to {self.high:,}"
      return _with_example(text, self.example) + self.hint
    ends = []
    if self.low > -math.inf:
      ends.append(f"{'above' if self.above else 'of at least'} {self.low:,}")
    if self.high < math.inf:
      ends.append(f"{'below' if self.below else 'at most'} {self.high:,}")
    text = f"a number {' and '.join(ends)}" if ends else "a finite number"
    return _with_example(text, self.example) + self.hint

  def accepts(self, value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
      return False
    # NaN fails this comparison; an integer may be too large for a float.
    if not self.low <= value <= self.high or abs(value) == math.inf:
      return False
    at_open_end = (self.above and value == self.low) or (
      self.below and value == self.high
    )
    return not at_open_end


@dataclasses.dataclass(frozen=True)
class Whole:
  """An integer.

  Attributes:
    low: Smallest integer.
    high: Largest integer; None for no limit.
    example: A usual value.
    hint: Advice that follows the description.
  """

  low: int
  high: int | None = None
  example: int | None = None
  hint: str = ""

  @property
  def expected(self) -> str:
    text = f"an integer of at least {self.low}"
    if self.high is not None:
      text = f"an integer from {self.low} to {self.high}"
    return _with_example(text, self.example) + self.hint

  def accepts(self, value: Any) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
      return False
    return self.low <= value and (self.high is None or value <= self.high)


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of several texts.

  Attributes:
    names: The texts.
  """

  names: tuple[str, ...]

  @property
  def expected(self) -> str:
    *names, last = (repr(name) for name in self.names)
    return f"{', '.join(names)} or {last}"

  def accepts(self, value: Any) -> bool:
    return isinstance(value, str) and value in self.names


@dataclasses.dataclass(frozen=True)
class Flag:
  """True or False."""

  expected = "True or False"

  def accepts(self, value: Any) -> bool:
    return isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Text:
  """Any text.

  Attributes:
    empty: Whether the text may be empty.
  """

  empty: bool = True

  @property
  def expected(self) -> str:
    return "text" if self.empty else "text that is not empty"

  def accepts(self, value: Any) -> bool:
    return isinstance(value, str) and (self.empty or bool(value.strip()))


@dataclasses.dataclass(frozen=True)
class Pattern:
  """A regular expression."""

  expected = "a regular expression such as 'bias$'"

  def accepts(self, value: Any) -> bool:
    try:
      re.compile(value)
    except (re.error, TypeError, OverflowError, RecursionError):
      return False
    return isinstance(value, str)


@dataclasses.dataclass(frozen=True)
class Many:
  """A tuple whose elements follow one rule.

  Attributes:
    rule: Rule of each element.
    lengths: Possible numbers of elements; () for any number.
    example: A usual value.
    order: Names of the elements, such as "(height, width)".
    empty: Whether there may be no element, if `lengths` does not say so.
    distinct: Whether all elements differ.
    hint: Advice that follows the description.
  """

  rule: Rule
  lengths: tuple[int, ...] = ()
  example: tuple = ()
  order: str = ""
  empty: bool = True
  distinct: bool = False
  hint: str = ""

  @property
  def expected(self) -> str:
    if self.order:
      text = f"() or {self.order}" if 0 in self.lengths else self.order
    else:
      different = "different " if self.distinct else ""
      count = " or ".join(map(str, self.lengths))
      count = count or ("" if self.empty else "1 or more")
      text = f"a tuple of {count} {different}elements".replace("  ", " ")
    text += f", each {self.rule.expected}"
    return _with_example(text, self.example or None) + self.hint

  def accepts(self, value: Any) -> bool:
    if not isinstance(value, tuple) or not (value or self.empty):
      return False
    if self.lengths and len(value) not in self.lengths:
      return False
    if not all(self.rule.accepts(element) for element in value):
      return False
    return not self.distinct or len(set(value)) == len(value)


@dataclasses.dataclass(frozen=True)
class Row:
  """A tuple with a rule for each element.

  Attributes:
    rules: Rule of each element.
  """

  rules: tuple[Rule, ...]

  @property
  def expected(self) -> str:
    return f"({', '.join(rule.expected for rule in self.rules)})"

  def accepts(self, value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) != len(self.rules):
      return False
    return all(
      rule.accepts(element)
      for rule, element in zip(self.rules, value, strict=True)
    )


@dataclasses.dataclass(frozen=True)
class Named:
  """A mapping of names to values that follow one rule.

  Attributes:
    rule: Rule of each value.
    example: A usual value, as text.
  """

  rule: Rule
  example: str

  @property
  def expected(self) -> str:
    return f"names with {self.rule.expected} each, for example {self.example}"

  def accepts(self, value: Any) -> bool:
    if not isinstance(value, Mapping) and not hasattr(value, "to_dict"):
      return False
    return len(value) > 0 and all(
      isinstance(key, str) and self.rule.accepts(value[key]) for key in value
    )


@dataclasses.dataclass(frozen=True)
class Either:
  """A value that follows one of several rules.

  Attributes:
    rules: The rules.
  """

  rules: tuple[Rule, ...]

  @property
  def expected(self) -> str:
    return ", or ".join(rule.expected for rule in self.rules)

  def accepts(self, value: Any) -> bool:
    return any(rule.accepts(value) for rule in self.rules)


@dataclasses.dataclass(frozen=True)
class Nothing:
  """None.

  Attributes:
    meaning: What None stands for.
  """

  meaning: str

  @property
  def expected(self) -> str:
    return f"None for {self.meaning}"

  def accepts(self, value: Any) -> bool:
    return value is None


def _with_example(text: str, example: Any) -> str:
  return text if example is None else f"{text}, for example {example}"
