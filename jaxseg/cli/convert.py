"""Convert a PyTorch weight file into ours.

  python -m jaxseg convert --model=resnet50 resnet50-0676ba61.pth resnet50.npz

OUT is .npz or .safetensors and holds a classification network, of which
--config.init.backbone=OUT takes the backbone. Nothing is written unless every
array of the network found its place.
"""

import argparse

from jaxseg import models, weights
from jaxseg.backbones import BACKBONES
from jaxseg.weights.tables import SOURCES


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "--model",
    required=True,
    metavar="NAME",
    help=f"the network in FILE: {', '.join(BACKBONES)}",
  )
  parser.add_argument(
    "--source",
    default="torchvision",
    help=f"whose names FILE has: {', '.join(SOURCES)} (default: %(default)s)",
  )
  parser.add_argument(
    "--num_classes",
    type=int,
    default=1000,
    metavar="N",
    help="outputs of its classifier (default: %(default)s)",
  )
  parser.add_argument(
    "--skip",
    action="append",
    default=[],
    metavar="REGEX",
    help="leave out parameters whose path contains REGEX, such as head; may "
    "be repeated",
  )
  parser.add_argument("file", metavar="FILE", help=".pth, .safetensors, .npz")
  parser.add_argument("out", metavar="OUT", help=".npz or .safetensors")


def run(args: argparse.Namespace) -> None:
  """Converts `args.file` into `args.out`."""
  model = models.create(
    "classifier", num_classes=args.num_classes, backbone=args.model
  )
  variables = weights.from_torch(
    model,
    weights.read_file(args.file),
    args.source,
    skip=args.skip,
    label=f"{args.file} into {args.model}",
  )
  weights.save(args.out, variables)
  print(f"wrote {args.out}")
