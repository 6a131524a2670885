"""Trains a network, or continues a run that was interrupted.

  jaxseg train --config=configs/pspnet.py
  jaxseg train --config=configs/pspnet.py:camvid,laptop --config.data.path=DIR

FILE describes the whole run. WORDS select its data set and variants, and
--config.FIELD=VALUE overrides a field; jaxseg/config.py explains all fields.
The same command continues an interrupted run from its last checkpoint.
`python train.py` is the same as `jaxseg train`.
"""

import argparse
from collections.abc import Sequence
import os
import sys

from absl import logging
from ml_collections import ConfigDict

from jaxseg import config_check
from jaxseg.cli import config_options, options, output
from jaxseg.config import default_workdir
from jaxseg.errors import UserError

USAGE = "--config=FILE[:WORDS] [OPTION ...]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument(
    "--config",
    metavar="FILE[:WORDS]",
    required=True,
    help="configuration file and words",
  )
  options.add_overrides(
    parser, "override a field, as in --config.train.steps=100"
  )
  parser.add_argument(
    "--workdir",
    metavar="DIR",
    default="",
    help="work directory; default: runs/NAME-WORDS",
  )
  options.add_json(parser, "the final scores")
  options.add_processes(parser)


def run(args: argparse.Namespace) -> int:
  """Trains the network of a configuration."""
  # Libraries log the traceback of an exception before they raise it. It is
  # reported once, in one line.
  logging.get_absl_logger().addFilter(lambda record: not record.exc_info)

  from jaxseg import processes

  try:
    with processes.joined(
      args.coordinator, args.num_processes, args.process_id
    ):
      _train(args)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    # At a normal exit TensorBoard's writer flushes its events once more. On a
    # full disk that fails, and its tracebacks would bury the error.
    os._exit(2)
  return 0


def _train(args: argparse.Namespace) -> None:
  config = config_options.read(args.config)
  config_options.override(config, args.overrides)
  _check_init(config, args.overrides)
  config_check.check(config)
  workdir = args.workdir or default_workdir(config)

  # Imported after the processes have joined: until then no device may be used.
  from jaxseg.training import loop

  with output.messages(to_stderr=args.json):
    scores = loop.train(config, workdir)
  if args.json:
    about = {"workdir": workdir, "step": config.train.steps}
    output.print_json({**about, **scores})


def _check_init(config: ConfigDict, overrides: Sequence[str]) -> None:
  """Refuses overrides of `config.init` that have no effect.

  Configuration files may set `init.skip` for the file that a user names.
  """
  if config.init.model or config.init.backbone:
    return
  for word in overrides:
    if config_options.field_name(word) in ("init.skip", "init.changed"):
      raise UserError(
        f"{word}: has no effect without weights to start from; add "
        "--config.init.model=FILE or --config.init.backbone=FILE, or leave it "
        "out"
      )
