"""Options that several commands share."""

import argparse

from jaxseg.cli import config_options


def add_run(parser: argparse.ArgumentParser) -> None:
  """Adds the options that select a trained network."""
  parser.add_argument(
    "--workdir", metavar="DIR", required=True, help="work directory of the run"
  )
  parser.add_argument(
    "--checkpoint",
    metavar="WHICH",
    type=_checkpoint,
    default="best",
    help="best (by validation mIoU), last, or a step; default: best",
  )


def add_overrides(parser: argparse.ArgumentParser, text: str) -> None:
  """Adds `--config.FIELD=VALUE`, described by `text`."""
  parser.add_argument(
    config_options.NAME, metavar="VALUE", dest="overrides", help=text
  )


def add_json(parser: argparse.ArgumentParser, text: str) -> None:
  """Adds `--json`; `text` names what is printed."""
  parser.add_argument(
    "--json", action="store_true", help=f"print {text} as one JSON object"
  )


def add_processes(parser: argparse.ArgumentParser) -> None:
  """Adds the options that join several processes."""
  group = parser.add_argument_group(
    "several processes (not needed on TPU pods, SLURM and Open MPI)"
  )
  group.add_argument(
    "--coordinator",
    metavar="HOST:PORT",
    default="",
    help="address of process 0",
  )
  group.add_argument(
    "--num-processes",
    metavar="N",
    type=int,
    default=0,
    help="number of processes",
  )
  group.add_argument(
    "--process-id",
    metavar="I",
    type=int,
    default=-1,
    help="number of this process, from 0",
  )


def _checkpoint(text: str) -> str | int:
  if text in ("best", "last"):
    return text
  if not text.isdigit():
    raise argparse.ArgumentTypeError(
      f"{text!r}: expected best, last or the number of a step"
    )
  return int(text)
