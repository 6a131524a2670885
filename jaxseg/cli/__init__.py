"""The commands: python -m jaxseg COMMAND, or jaxseg COMMAND.

A command is one file here with `add_arguments(parser)` and `run(args)`, its
docstring the help text, and one row of `COMMANDS`. Only the command that is
asked for is imported, so that `--help` and light ones answer at once.
"""

import argparse
from collections.abc import Sequence
import importlib
import sys
import warnings

from absl import logging

from jaxseg.errors import exit_on_user_error, unknown_name

COMMANDS = {
  "convert": "another framework's checkpoint as a file jaxseg starts from",
  "evaluate": "score a trained network on a split of its data",
  "predict": "segment images with a trained network",
}


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command; returns its exit status.

  Raises:
    SystemExit: with status 2 for anything wrong with the command line or the
      files it names, after one line that says what.
  """
  argv = sys.argv[1:] if argv is None else list(argv)
  if not argv or argv[0] in ("-h", "--help"):
    print(_overview())
    return 0
  name, *rest = argv
  if name not in COMMANDS:
    raise unknown_name("command", name, COMMANDS)
  module = importlib.import_module(f"jaxseg.cli.{name.replace('-', '_')}")
  parser = argparse.ArgumentParser(
    prog=f"jaxseg {name}",
    description=module.__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  module.add_arguments(parser)
  args = parser.parse_args(rest)
  # The libraries' own remarks are not about the user's command.
  logging.set_verbosity(logging.ERROR)
  warnings.filterwarnings("ignore", module="orbax")
  try:
    return module.run(args) or 0
  except KeyboardInterrupt:
    return 130  # What a shell says of a command ended by Ctrl-C.


def _overview() -> str:
  width = max(map(len, COMMANDS))
  lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
  return "\n".join(
    [
      "usage: jaxseg COMMAND ...   (or python -m jaxseg COMMAND ...)",
      "",
      *lines,
      "",
      "jaxseg COMMAND --help says more. To train: python train.py --help",
    ]
  )
