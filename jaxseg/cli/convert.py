"""Convert a PyTorch weight file into ours.

  python -m jaxseg convert --model=resnet50 resnet50-0676ba61.pth resnet50.npz
  python -m jaxseg convert --model=deeplab_v3 deeplabv3.pth deeplab_v3.npz

OUT is .npz or .safetensors. That of a classification network is for
--config.init.backbone=OUT, that of a segmentation network for
--config.init.model=OUT in a network of the fields that are printed. Nothing is
written unless every array of the network found its place.
"""

import argparse

from jaxseg import models, weights
from jaxseg.backbones import BACKBONES
from jaxseg.weights import classification, segmentation

# Those of segmentation networks, and whose they are.
NETWORKS = {
  name: [
    source for source, having in segmentation.FIELDS.items() if name in having
  ]
  for name in sorted(
    {n for having in segmentation.FIELDS.values() for n in having}
  )
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "--model",
    required=True,
    metavar="NAME",
    help="the network in FILE: "
    + "; ".join(f"{n} ({', '.join(of)})" for n, of in NETWORKS.items())
    + f"; or a classification network: {', '.join(BACKBONES)}",
  )
  parser.add_argument(
    "--source",
    default="torchvision",
    help="whose names FILE has: "
    + ", ".join(
      dict.fromkeys((*classification.LIBRARIES, *segmentation.LIBRARIES))
    )
    + " (default: %(default)s)",
  )
  parser.add_argument(
    "--num_classes",
    type=int,
    metavar="N",
    help="outputs of its classifier (default: 1000; a segmentation network's "
    "are read from FILE)",
  )
  parser.add_argument(
    "--backbone",
    default="",
    metavar="NAME",
    help="backbone of a segmentation network (default: the ResNet that FILE "
    "has, if it has one)",
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
  arrays = weights.read_file(args.file)
  if args.model in NETWORKS:
    fields = segmentation.recognise_fields(
      args.model, args.source, arrays, args.backbone
    )
    if args.num_classes:
      fields["num_classes"] = args.num_classes
    model = models.create(args.model, **fields)
  else:
    fields = {}
    model = models.create(
      "classifier", num_classes=args.num_classes or 1000, backbone=args.model
    )
  variables = weights.from_torch(
    model,
    arrays,
    args.source,
    skip=args.skip,
    label=f"{args.file} into {args.model}",
  )
  weights.save(args.out, variables)
  print(f"wrote {args.out}")
  if fields:
    described = ", ".join(f"{key}={value!r}" for key, value in fields.items())
    print(f"its network: {args.model} with {described}")
