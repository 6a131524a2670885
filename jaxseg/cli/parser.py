"""The command-line parser of all commands."""

import argparse
from collections.abc import Sequence
import functools
from typing import NoReturn

from jaxseg.cli import config_options
from jaxseg.errors import UserError, unknown_name

# A screen of 80 columns. Options of up to 22 characters share the line of
# their description.
_formatter = functools.partial(
  argparse.RawDescriptionHelpFormatter, width=79, max_help_position=26
)


class CommandParser(argparse.ArgumentParser):
  """`argparse` with the rules that all commands share.

  - A mistake raises `UserError`, so that it is reported in one line.
  - Options cannot be abbreviated.
  - Commands with the option `config_options.NAME` accept any number of
    `--config.FIELD=VALUE`, in any place; `args.overrides` lists them.
  """

  def __init__(self, name: str, usage: str, description: str | None):
    """Creates the parser of one command.

    Args:
      name: Name of the command.
      usage: Arguments of the command, as the first line of its help.
      description: Text of its help, above the options.
    """
    super().__init__(
      prog=f"jaxseg {name}",
      usage=f"jaxseg {name} {usage}",
      description=description,
      formatter_class=_formatter,
      allow_abbrev=False,
    )

  def parse_args(self, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments of the command.

    Raises:
      UserError: The arguments are wrong.
    """
    options = self._option_string_actions
    overrides: list[str] = []
    if config_options.NAME in options:
      argv, overrides = config_options.split(argv)
    for before, word in zip(("", *argv), argv, strict=False):
      if word == "--":  # Everything that follows is positional.
        break
      name = word.partition("=")[0]
      if name.startswith("--") and name not in options:
        raise unknown_name(f"option of {self.prog}", name, options)
      is_argument = not word.startswith("-") and not before.startswith("-")
      is_config = is_argument and word.partition(":")[0].endswith(".py")
      if is_config and "--config" in options:
        raise UserError(
          f"{word}: write --config={word}; see {self.prog} --help"
        )
    args, unexpected = self.parse_known_args(argv)
    if unexpected:
      self.error(f"unexpected argument {unexpected[0]!r}")
    args.overrides = overrides
    return args

  def error(self, message: str) -> NoReturn:
    """Raises `UserError`; called by `argparse` for every mistake."""
    if message.endswith("required: --config"):
      message += ", for example --config=configs/pspnet.py"
    raise UserError(f"{message}; see {self.prog} --help")
