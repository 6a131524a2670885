"""The commands: `jaxseg COMMAND`, or `python -m jaxseg COMMAND`.

Each command is one module of this package and has one row in `COMMANDS`. Its
docstring is the text of `--help`, `USAGE` follows the name of the command
there, `add_arguments(parser)` declares the options, and `run(args)` does the
work and returns the exit status. Only the module of the given command is
imported, so that `jaxseg --help` answers at once.
"""

from collections.abc import Sequence
import importlib
import sys
import warnings

from absl import logging

from jaxseg import __version__
from jaxseg.cli.parser import CommandParser
from jaxseg.errors import exit_on_user_error, unknown_name

COMMANDS = {
  "train": "train a network, or continue an interrupted run",
  "evaluate": "score a trained network on a split of its data set",
  "predict": "segment images with a trained network",
  "convert": "convert the weights of another library for jaxseg",
}


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command.

  Args:
    argv: Name of the command and its arguments; by default those of the
      process.

  Returns:
    The exit status: 0 for success, 130 after Ctrl-C.

  Raises:
    SystemExit: With status 2 if the command line, or a file that it names, is
      wrong. One line on standard error says why.
  """
  argv = sys.argv[1:] if argv is None else list(argv)
  if not argv or argv[0] in ("-h", "--help"):
    print(_overview())
    return 0
  if "--version" in argv[:2]:
    print(f"jaxseg {__version__}")
    return 0
  name, *rest = argv
  if name not in COMMANDS:
    raise unknown_name("command", name, COMMANDS)
  try:
    return _run(name, rest)
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    return 130  # What a shell reports of a process that Ctrl-C ended.


def _run(name: str, argv: Sequence[str]) -> int:
  """Imports and runs a command."""
  module = importlib.import_module(f"jaxseg.cli.{name}")
  parser = CommandParser(name, module.USAGE, module.__doc__)
  module.add_arguments(parser)
  args = parser.parse_args(argv)
  # Log messages and warnings of libraries do not concern the user.
  logging.set_verbosity(logging.ERROR)
  warnings.filterwarnings("ignore", module="orbax")
  # A damaged file costs a compilation, and so does a full disk.
  warnings.filterwarnings("ignore", message="Error .* persistent compilation")
  return module.run(args)


def _overview() -> str:
  width = max(map(len, COMMANDS))
  commands = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
  return "\n".join(
    [
      "usage: jaxseg COMMAND [OPTION ...]  (or: python -m jaxseg COMMAND ...)",
      "",
      *commands,
      "",
      "jaxseg COMMAND --help shows an example and the options of a command,",
      "jaxseg --version the version.",
    ]
  )
