"""Class names from a file `classes.txt` beside the folders of a data set.

It has one name a line, in the order of the ids: the first line names class 0.
Alternatively each line has an id and a name, such as "0 sky", in any order.
Lines that begin with "#" are skipped.
"""

from pathlib import Path
import re

from jaxseg.errors import UserError

NAME = "classes.txt"
_NUMBERED = re.compile(r"(\d+)[\s:,;=]+(\S.*)")


def read(path: Path, ignore_label: int) -> tuple[str, ...]:
  """Returns the name of each class.

  Args:
    path: The file.
    ignore_label: Id of ignored pixels. Its line, as in "255 void", is skipped.

  Raises:
    UserError: The file cannot be read, or does not name two or more classes
      0, 1, 2, ... once.
  """
  try:
    text = path.read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f"{path}: cannot be read as UTF-8 text ({error}); expected one class name"
      " a line"
    ) from error
  lines = [
    (number, line.strip())
    for number, line in enumerate(text.rstrip().splitlines(), 1)
    if not line.startswith("#")
  ]
  if lines and _NUMBERED.fullmatch(lines[0][1]):
    names = _numbered(path, lines, ignore_label)
  else:
    names = _in_order(path, lines)
  if len(names) < 2:
    raise UserError(
      f"{path} names {len(names)} classes; expected two or more, one a line"
    )
  for i, name in enumerate(names):
    if name in names[:i]:
      raise UserError(
        f"{path} names both class {names.index(name)} and class {i} {name!r};"
        " give each class a name of its own"
      )
  return names


def _in_order(path: Path, lines: list[tuple[int, str]]) -> tuple[str, ...]:
  for number, name in lines:
    if not name:
      raise UserError(
        f"{path}, line {number} is empty; expected a name for each class, in"
        " the order of the ids"
      )
  return tuple(name for _, name in lines)


def _numbered(
  path: Path, lines: list[tuple[int, str]], ignore_label: int
) -> tuple[str, ...]:
  names: dict[int, str] = {}
  for number, line in lines:
    match = _NUMBERED.fullmatch(line)
    if not match:
      raise UserError(
        f"{path}, line {number}: {line!r}; expected an id and a name, such as"
        " '0 sky', as in the first line"
      )
    i = int(match[1])
    if i in names:
      raise UserError(
        f"{path}, line {number}: id {i} is named {names[i]!r} before; name it"
        " once"
      )
    names[i] = match[2]
  names.pop(ignore_label, None)
  ids = sorted(names)
  if ids != list(range(len(ids))):
    missing = next(i for i in range(len(ids)) if i not in names)
    pairs = ", ".join(f"{i}: {new}" for new, i in enumerate(ids) if i != new)
    raise UserError(
      f"{path} names the ids {', '.join(map(str, ids))} but not {missing};"
      " name every id from 0 on, or renumber the masks with"
      f" --config.data.label_map='{{{pairs}}}' and list the names in the order"
      " of the new ids"
    )
  return tuple(names[i] for i in ids)
