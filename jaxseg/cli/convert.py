"""Converts weights of another library into a file that jaxseg reads.

  jaxseg convert --model=resnet50 resnet50-0676ba61.pth resnet50.npz
  jaxseg convert --model=deeplab_v3 --library=smp smp.pth deeplab_v3.npz

The command prints the options of `jaxseg train` that start from OUT:
--config.init.model with the fields of the network in FILE for a segmentation
network, and for a classification network --config.init.backbone, as an example
in a U-Net. OUT is written only if FILE has every array of the network. It holds
the fields of the network too, which `jaxseg train` compares with its own.
"""

import argparse
from collections.abc import Mapping, Sequence
import functools
import operator
import shlex
from typing import Any

from ml_collections import ConfigDict

from jaxseg import models, weights
from jaxseg.cli import config_options, options, output
from jaxseg.config import BackboneFields
from jaxseg.errors import UserError
from jaxseg.weights import classification, segmentation
from jaxseg.weights.report import SKIP_FLAG

USAGE = "--model=NAME [OPTION ...] FILE OUT"

LIBRARIES = tuple(
  dict.fromkeys((*classification.LIBRARIES, *segmentation.LIBRARIES))
)
# Number of classes of a network whose layers for them are left out.
DEFAULT_CLASSES = 21
# Segmentation networks that a library has.
NETWORKS = tuple(
  sorted({name for known in segmentation.FIELDS.values() for name in known})
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument(
    "file",
    metavar="FILE",
    help="weights of PyTorch, safetensors or .npz, whatever the ending",
  )
  parser.add_argument("out", metavar="OUT", help=".npz or .safetensors")
  parser.add_argument(
    "--model",
    required=True,
    metavar="NAME",
    help="network in FILE: a backbone, such as resnet50, or one of "
    + ", ".join(NETWORKS),
  )
  parser.add_argument(
    "--library",
    metavar="NAME",
    help=f"library of FILE: {', '.join(LIBRARIES)}; default: the one with the "
    "names in FILE",
  )
  parser.add_argument(
    "--num-classes",
    type=_positive,
    metavar="N",
    help="number of classes; default: found in FILE",
  )
  parser.add_argument(
    "--backbone",
    default="",
    metavar="NAME",
    help="backbone; default: the ResNet in FILE",
  )
  parser.add_argument(
    "--skip",
    action="append",
    default=[],
    metavar="REGEX",
    help="leave out parameters whose path has REGEX",
  )
  options.add_overrides(
    parser, "override a field, as in --config.model.rates=6,12"
  )
  options.add_json(parser, "fields and options")


def _positive(text: str) -> int:
  if not text.isdecimal() or int(text) == 0:
    raise argparse.ArgumentTypeError(f"{text!r}: expected 1 or more")
  return int(text)


def run(args: argparse.Namespace) -> int:
  """Converts `args.file` into `args.out`."""
  with output.messages(to_stderr=args.json):
    report = _convert(args)
  if args.json:
    output.print_json(report)
    return 0
  print(f"wrote {args.out}: {args.model} of {report['num_classes']} classes")
  print(f"use it with: jaxseg train {shlex.join(report['options'])}")
  return 0


def _convert(args: argparse.Namespace) -> dict[str, Any]:
  """Writes the file and returns what `--json` prints."""
  weights.check_target(args.out)
  arrays = weights.read_file(args.file)
  if args.model in NETWORKS:
    name, library = args.model, args.library
    if library is None:
      library = segmentation.recognise_library(name, arrays)
    fields = segmentation.recognise_fields(name, library, arrays, args.backbone)
  else:
    name, library = "classifier", args.library
    fields = classification.recognise_fields(args.model, library, arrays)
  num_classes = _num_classes(args, fields.pop("num_classes", None))
  fields = with_overrides(name, fields, args.overrides)
  model = models.create(name, num_classes=num_classes, **fields)
  variables = weights.from_torch(
    model,
    arrays,
    library,
    skip=args.skip,
    label=f"{args.file} into {args.model}",
    skip_option=SKIP_FLAG,
  )
  weights.save(args.out, variables, weights.describe(model))
  if name == "classifier":
    # A U-Net takes every backbone, and its paper does not adapt it.
    given = train_options("unet_backbone", fields)
    given.append(f"--config.init.backbone={args.out}")
  else:
    given = train_options(name, fields)
    given.append(f"--config.init.model={args.out}")
  return {
    "out": args.out,
    "model": args.model,
    "num_classes": num_classes,
    "fields": fields,
    "options": given,
  }


def _num_classes(args: argparse.Namespace, found: int | None) -> int:
  """Returns the number of classes of the network.

  Args:
    args: Arguments of the command.
    found: Number of classes in the file, if it has a layer for them.

  Raises:
    UserError: The numbers differ, and all layers are to be converted.
  """
  if found is None:
    return args.num_classes or DEFAULT_CLASSES
  if args.num_classes not in (None, found) and not args.skip:
    raise UserError(
      f"--num-classes={args.num_classes}: {args.file} has {found} classes; "
      "leave out this option, or the layer that depends on it with "
      "--skip=classifier"
    )
  return args.num_classes or found


def with_overrides(
  name: str, fields: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
  """Returns the fields of a network with those that overrides change.

  Args:
    name: Key of `models.MODELS`.
    fields: Fields that differ from the paper's.
    overrides: Options `--config.model.FIELD=VALUE`.

  Raises:
    UserError: The network has no such field, or the value has another type.
  """
  chosen = dict(fields)
  if not overrides:
    return chosen
  backbone = chosen.get("backbone", {})
  config = ConfigDict({"model": models.fields(name, backbone=backbone or None)})
  if "backbone" in config.model:
    chosen["backbone"] = {"name": config.model.backbone.name, **backbone}
    config.model.backbone = BackboneFields(config.model.backbone)
  config_options.override(config, overrides, allowed=("model.",))
  for word in overrides:
    path = config_options.field_name(word).split(".")
    value = functools.reduce(operator.getitem, path, config)
    section = chosen["backbone"] if path[1] == "backbone" else chosen
    section[path[-1]] = value
  return chosen


def train_options(name: str, fields: Mapping[str, Any]) -> list[str]:
  """Returns the options of `jaxseg train` that build a network.

  The backbone is a word of the configuration file, and all other fields are
  overrides. The data set is a folder of images and masks.

  Args:
    name: Key of `models.MODELS`.
    fields: Fields that differ from the paper's.
  """
  own = dict(fields)
  backbone = dict(own.pop("backbone", {}))
  words = ["folder"]
  if "name" in backbone:
    words.append(backbone.pop("name"))
  norm = own.pop("norm", None)
  overrides = [f"--config.model.{key}={value}" for key, value in own.items()]
  overrides += [
    f"--config.model.backbone.{key}={value}" for key, value in backbone.items()
  ]
  if norm is not None:
    overrides.append(f"--config.norm.name={norm}")
  return [f"--config=configs/{name}.py:{','.join(words)}", *overrides]
