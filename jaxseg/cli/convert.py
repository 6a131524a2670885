"""Converts weights of another library into a file that jaxseg reads.

  jaxseg convert --model=resnet50 resnet50-0676ba61.pth resnet50.npz
  jaxseg convert --model=deeplab_v3 --library=smp smp.pth deeplab_v3.npz

The command prints the options of `jaxseg train` that start from OUT:
--config.init.backbone for a classification network, and for a segmentation
network --config.init.model with the fields of the network in FILE. OUT is
written only if FILE has every array of the network.
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
from jaxseg.weights import classification, segmentation

USAGE = "--model=NAME [OPTION ...] FILE OUT"

LIBRARIES = tuple(
  dict.fromkeys((*classification.LIBRARIES, *segmentation.LIBRARIES))
)
# Segmentation networks that a library has.
NETWORKS = tuple(
  sorted({name for known in segmentation.FIELDS.values() for name in known})
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument(
    "file", metavar="FILE", help="weights: .pth, .safetensors or .npz"
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
    default="torchvision",
    metavar="NAME",
    help=f"library of FILE: {', '.join(LIBRARIES)}; default: %(default)s",
  )
  parser.add_argument(
    "--num-classes",
    type=int,
    metavar="N",
    help="number of classes; default: found in FILE, or 1000",
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
  arrays = weights.read_file(args.file)
  if args.model in NETWORKS:
    fields = segmentation.recognise_fields(
      args.model, args.library, arrays, args.backbone
    )
    found = fields.pop("num_classes")
    num_classes = args.num_classes or found
    fields = with_overrides(args.model, fields, args.overrides)
    model = models.create(args.model, num_classes=num_classes, **fields)
    given = [
      *train_options(args.model, fields),
      f"--config.init.model={args.out}",
    ]
  else:
    num_classes = args.num_classes or 1000
    fields = with_overrides(
      "classifier", {"backbone": {"name": args.model}}, args.overrides
    )
    model = models.create("classifier", num_classes=num_classes, **fields)
    given = [f"--config.init.backbone={args.out}"]
  variables = weights.from_torch(
    model,
    arrays,
    args.library,
    skip=args.skip,
    label=f"{args.file} into {args.model}",
  )
  weights.save(args.out, variables)
  return {
    "out": args.out,
    "model": args.model,
    "num_classes": num_classes,
    "fields": fields,
    "options": given,
  }


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
