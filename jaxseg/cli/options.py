"""Options that commands on a work directory share."""

import argparse

from ml_collections import ConfigDict

from jaxseg.evaluation.inference import MODES
from jaxseg.layers.crf_settings import SETTINGS


def add_run(parser: argparse.ArgumentParser) -> None:
  """Which trained network."""
  parser.add_argument(
    "--workdir", required=True, help="work directory of a training run"
  )
  parser.add_argument(
    "--checkpoint",
    type=_checkpoint,
    default="best",
    help='"best" by validation mIoU, "last", or a step (default: best)',
  )


def add_inference(parser: argparse.ArgumentParser) -> None:
  """How it is applied; what is not given is as the run's config says."""
  group = parser.add_argument_group(
    "how the network is applied (default: as the run's config.eval says)"
  )
  group.add_argument("--mode", choices=MODES, help="whole image, or windows")
  group.add_argument(
    "--stride",
    type=float,
    help="step of sliding windows as a share of the window",
  )
  group.add_argument(
    "--scales",
    type=_scales,
    help="input scales to average over, e.g. 0.5,1,1.5",
  )
  group.add_argument(
    "--flip",
    action=argparse.BooleanOptionalAction,
    help="average with the mirrored image",
  )
  group.add_argument(
    "--dropout-samples",
    type=int,
    help="average networks drawn by dropout (Bayesian SegNet); 0 for none",
  )
  group.add_argument(
    "--crf",
    metavar="SETTINGS",
    help="refine with a dense CRF: one of "
    + ", ".join(SETTINGS)
    + "; and / or changes to it, e.g. deeplab_v2,iterations=5; '' for none",
  )


def override(config: ConfigDict, args: argparse.Namespace) -> None:
  """Puts the options that were given into `config.eval`."""
  for field in ("mode", "stride", "scales", "flip", "dropout_samples", "crf"):
    value = getattr(args, field)
    if value is not None:
      config.eval[field] = value


def _checkpoint(text: str) -> str | int:
  if text in ("best", "last"):
    return text
  if not text.isdigit():
    raise argparse.ArgumentTypeError(
      f"{text!r}; expected best, last or the number of a step"
    )
  return int(text)


def _scales(text: str) -> tuple[float, ...]:
  try:
    return tuple(float(word) for word in text.split(","))
  except ValueError:
    raise argparse.ArgumentTypeError(
      f"{text!r}; expected numbers such as 0.5,1,1.5"
    ) from None
