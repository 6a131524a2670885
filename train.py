"""Trains a network: python train.py --config=configs/pspnet.py

The configuration file decides everything; `:camvid` behind its name chooses
the data preset, `--config.train.steps=100` overrides a field. The same
command continues an interrupted run from its last checkpoint.
"""

import os
import re
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jaxseg import errors, sharding

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Configuration file, e.g. configs/pspnet.py:camvid"
)
WORKDIR = flags.DEFINE_string(
  "workdir", "", "Default: runs/<config>-<data set>."
)
COORDINATOR = flags.DEFINE_string(
  "coordinator", "", "host:port of process 0, for several processes."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which one this is.")


def main(argv: list[str]) -> None:
  """Starts the processes and trains."""
  if len(argv) > 1:
    raise errors.UserError(f"unexpected argument {argv[1]!r}; see --help")
  sharding.join_processes(
    COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
  )
  logging.set_verbosity(logging.WARNING)
  # What a library logs with its traceback it raises as well: told once.
  logging.get_absl_handler().addFilter(lambda record: not record.exc_info)
  # Imported only now: nothing may touch a device before the processes join.
  from jaxseg.training import loop

  config = CONFIG.value
  workdir = WORKDIR.value or f"runs/{config.name}-{config.data.name}"
  try:
    loop.train(config, workdir)
  except errors.UserError as error:
    # Without waiting for writer threads that a full disk keeps failing.
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(2)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; any mistake in it is one clear line."""
  try:
    flags.mark_flag_as_required("config")
    return flags.FLAGS(argv)
  except (flags.Error, OSError) as error:
    raise errors.UserError(" ".join(str(error).split())) from error
  except AttributeError as error:
    # A locked ConfigDict refuses a field it does not have.
    field = re.search(r"'(\w+)'", str(error).replace("\\", ""))
    name = field.group(1) if field else ""
    given = [a for a in argv if re.match(rf"--config\.([\w.]*\.)?{name}\b", a)]
    guess = re.search(r'Did you mean "(\w+)"', str(error))
    raise errors.UserError(
      f"{given[0] if given else name}: the configuration has no such field"
      + (f" (did you mean {guess.group(1)!r}?)" if guess else "")
      + "; jaxseg/config.py lists every field, a network's own are those that "
      "its configuration file names"
    ) from error


if __name__ == "__main__":
  run = errors.exit_on_user_error(app.run)
  run(errors.exit_on_user_error(main), flags_parser=parse_flags, argv=sys.argv)
