"""Configurations on the command line, the same in every command.

`--config=FILE[:WORDS]` names a configuration file, and `--config.FIELD=VALUE`
overrides one of its fields. `ml_collections` parses the values: numbers,
`True` and `False`, text without quotes, tuples as `'(1, 2)'`. Its flags are
defined on a separate `absl.flags.FlagValues`, so that flags of libraries are
neither accepted nor listed.
"""

import ast
from collections import deque
from collections.abc import Iterator, Sequence
import contextlib
import difflib
import functools
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
import inspect
import operator
from pathlib import Path
import re
import traceback
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxseg import config_check
from jaxseg.config import BackboneFields, base
from jaxseg.errors import UserError

# How `--help` writes the option that overrides a field.
NAME = "--config.FIELD"
_PREFIX = "--config."
_FILE = "expected FILE or FILE:WORDS, such as configs/pspnet.py:camvid"

# Fields that may differ from those of a trained run. A name that ends in a
# dot stands for a section.
EVALUATION_FIELDS = (
  "eval.",
  "data.path",
  "data.prepared",
  "data.loader",
  "data.eval_split",
  "data.label_map",
  "data.bits",
)


class _Literal(flags.ArgumentParser):
  """Parser of Python literals and of text."""

  def parse(self, argument: str) -> Any:
    """Returns the literal; text that is no literal is returned unchanged."""
    try:
      return ast.literal_eval(argument)
    except (SyntaxError, ValueError):
      return argument


# A field whose value is None has no type, so it takes any value.
config_flags.register_flag_parser_for_type(type(None), _Literal())


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Separates overrides of fields from the other arguments of a command.

  Args:
    argv: Arguments, with fields as `--config.FIELD=VALUE` or
      `--config.FIELD VALUE`; `--config.FIELD` alone sets a boolean field.

  Returns:
    The other arguments, and the overrides, each of them one word.
  """
  others, overrides = [], []
  remaining = deque(argv)
  while remaining:
    word = remaining.popleft()
    if not word.startswith(_PREFIX):
      others.append(word)
      continue
    if "=" not in word and remaining and _is_value(remaining[0], word):
      word = f"{word}={remaining.popleft()}"
    overrides.append(word)
  return others, overrides


def _is_value(following: str, word: str) -> bool:
  """Returns whether the argument after `--config.FIELD` is its value."""
  if following.startswith("--"):
    return False
  # In `--config.eval.flip image.png` the image is another argument.
  return following.lower() in ("true", "false") or not _is_boolean(word)


def _is_boolean(word: str) -> bool:
  value = base()
  for name in field_name(word).split("."):
    value = value.get(name) if isinstance(value, ConfigDict) else None
  return isinstance(value, bool)


def field_name(word: str) -> str:
  """Returns FIELD of `--config.FIELD=VALUE`."""
  return word.removeprefix(_PREFIX).partition("=")[0]


def read(text: str) -> ConfigDict:
  """Reads a configuration from its file.

  Args:
    text: "FILE" or "FILE:WORDS", the value of `--config`. WORDS is passed to
      the function `get_config` of the file.

  Returns:
    The configuration, locked.

  Raises:
    UserError: There is no such file, it is not a configuration file, it does
      not know a word, or its code raises an exception; the message names the
      line.
  """
  name, *words = text.split(":", maxsplit=1)
  path = Path(name)
  _check_path(text, path)
  with _errors_of(path):
    module = _load(path)
  get_config = getattr(module, "get_config", None)
  if not callable(get_config):
    raise UserError(
      f"--config={text}: the file has no function get_config; {_FILE}"
    )
  try:
    inspect.signature(get_config).bind(*words)
  except TypeError as error:
    raise UserError(
      f"--config={text}: get_config: {error}; expected a function of the words "
      'after the colon, def get_config(arg="")'
    ) from error
  with _errors_of(path):
    config = get_config(*words)
  if not isinstance(config, ConfigDict):
    raise UserError(
      f"--config={text}: get_config returned {type(config).__name__}; expected "
      "an ml_collections.ConfigDict, see jaxseg/config.py"
    )
  return config.lock()


def _check_path(text: str, path: Path) -> None:
  """Raises UserError if the path in `--config=text` is no Python file."""
  if path.is_file() and path.suffix == ".py":
    return
  if text.startswith(":") or not text:
    seen = "the name of the file is empty"
  elif path.is_dir():
    seen = f"{path} is a folder"
  elif path.is_file():
    seen = f"{path} is no Python file"
  else:
    # The last folder counts first. Outside of the source tree a file is found
    # beside train.py.
    source = Path(__file__).parents[2] / "configs"
    folders = (source, Path("configs"), path.parent)
    known = {p.stem: p for folder in folders for p in folder.glob("*.py")}
    close = difflib.get_close_matches(path.stem, known, n=1)
    guess = f" (did you mean {str(known[close[0]])!r}?)" if close else ""
    seen = f"no such file{guess}"
  raise UserError(f"--config={text}: {seen}; {_FILE}")


def _load(path: Path) -> ModuleType:
  """Executes a Python file as a module of its own."""
  loader = SourceFileLoader("config_file", str(path))
  module = module_from_spec(spec_from_loader(loader.name, loader))
  loader.exec_module(module)
  return module


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
  """Turns any exception of a configuration file into a UserError.

  The file is the user's own code, so it may raise anything. The message names
  the last line of the file that was executed.
  """
  try:
    yield
  except UserError:
    raise
  except SyntaxError as error:
    where = f"{error.filename or path}, line {error.lineno}"
    code = (error.text or "").strip()
    raise UserError(f"{where} ({code}): {error.msg}") from error
  except Exception as error:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == path]
    where = f"{path}, line {own[-1].lineno} ({own[-1].line})" if own else path
    raise UserError(f"{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
  """Returns type and message of an exception in one short line.

  `ml_collections` lists all fields of a section; only its guess is kept.
  """
  message = error.args[0] if isinstance(error, KeyError) else error
  text = " ".join(str(message).split())
  text, fields, rest = text.partition(" Other fields present:")
  if fields:
    guess = re.search(r"Did you mean .*", rest)
    text += f" {guess[0]}" if guess else ""
  return f"{type(error).__name__}: {text}"[:300]


def override(
  config: ConfigDict,
  words: Sequence[str],
  *,
  allowed: Sequence[str] | None = None,
) -> None:
  """Overrides fields of `config` in place.

  Args:
    config: A configuration.
    words: Overrides as `split` returns them. The last of several overrides of
      a field counts; several overrides of a tuple are its elements.
    allowed: Fields that may be overridden, written as in `EVALUATION_FIELDS`;
      None allows all.

  Raises:
    UserError: A field does not exist, must not be overridden, or cannot have
      this value.
  """
  by_field: dict[str, list[str]] = {}
  for word in words:
    by_field.setdefault(field_name(word), []).append(word)
  for field, given in by_field.items():
    value = _value(config, field, given[-1])
    if allowed is not None and not _is_among(field, allowed):
      raise _not_allowed(field, given[-1], allowed)
    if field == "model.name" and config.model.name != given[-1].split("=")[-1]:
      raise UserError(
        f"{given[-1]}: the other fields of the network are those of {value!r}; "
        "choose a network by its file, as in --config=configs/unet.py"
      )
    try:
      _parse(config, field, given)
    except (flags.Error, TypeError, ValueError) as error:
      raise UserError(
        f"{' '.join(given)}: expected {_expected(field, value)}"
      ) from error


def _parse(config: ConfigDict, field: str, words: Sequence[str]) -> None:
  """Sets a field; absl or Python raise an error for a value of another type."""
  *sections, name = field.split(".")
  section = functools.reduce(operator.getitem, sections, config)
  value = section[name]
  values = flags.FlagValues()
  config_flags.DEFINE_config_dict(
    "config", config, flag_values=values, sys_argv=words
  )
  values(["jaxseg", *words])
  if isinstance(value, tuple):
    section[name] = _same_elements(section[name], value)


def _same_elements(new: tuple, old: tuple) -> tuple:
  """Returns `new` with elements of the type that all elements of `old` have.

  Raises:
    ValueError: An element has another type.
  """
  kinds = {type(element) for element in old}
  if kinds == {float}:
    return tuple(float(element) for element in new)
  for kind in (int, str):
    if kinds == {kind} and not all(type(element) is kind for element in new):
      raise ValueError(f"{new} has elements that are no {kind.__name__}")
  return new


def _value(config: ConfigDict, field: str, word: str) -> Any:
  """Returns the value of a field.

  Raises:
    UserError: There is no such field.
  """
  value, path = config, "config"
  for name in field.split("."):
    if not isinstance(value, ConfigDict):
      raise UserError(f"{word}: {path} is a value and has no fields")
    if name not in value:
      close = difflib.get_close_matches(name, value, n=1)
      guess = f" (did you mean {close[0]!r}?)" if close else ""
      raise UserError(
        f"{word}: {path} has no field {name!r}{guess}; its fields: "
        f"{', '.join(sorted(value))}"
      )
    value, path = value[name], f"{path}.{name}"
  return value


def _is_among(field: str, names: Sequence[str]) -> bool:
  return any(
    field == name or (name.endswith(".") and field.startswith(name))
    for name in names
  )


def _not_allowed(field: str, word: str, allowed: Sequence[str]) -> UserError:
  if _is_among(field, EVALUATION_FIELDS):
    reason = f"config.{field} has no effect on this command"
  else:
    reason = f"config.{field} is fixed by the trained run"
  names = ", ".join(f"{n}*" if n.endswith(".") else n for n in allowed)
  return UserError(f"{word}: {reason}; fields that can be overridden: {names}")


def _expected(field: str, value: Any) -> str:
  """Describes the values that a field may have, by its present value."""
  if isinstance(value, BackboneFields):
    return (
      "a word after the colon for another backbone, as in --config=configs/"
      f"pspnet.py:camvid,resnet50, or a field such as --config.{field}."
      f"{max(value)}=VALUE"
    )
  if isinstance(value, ConfigDict):
    name = "name" if "name" in value else next(iter(value), "FIELD")
    return f"a field of this section, such as --config.{field}.{name}=VALUE"
  if value is None and field in config_check.FIELDS:
    return config_check.FIELDS[field].expected
  if isinstance(value, bool):
    return "True or False"
  if isinstance(value, int):
    return f"an integer such as {value}"
  if isinstance(value, float):
    return f"a number such as {value}"
  if isinstance(value, tuple):
    return f"a tuple such as {str(value or (1, 2))!r}"
  return f"a value, as in --config.{field}=VALUE"
