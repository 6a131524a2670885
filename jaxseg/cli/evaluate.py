"""Scores a trained network on a split of its data set.

Prints IoU, accuracy and share of every class, and how they were computed, so
that two numbers can be compared. With --json one JSON object is all that goes
to standard output; undefined scores are null in it.
"""

import argparse
import json
import math
from typing import Any

import jax

from jaxseg import data, metrics, sharding
from jaxseg.cli import options
from jaxseg.evaluation import scoring, tables
from jaxseg.runs.run import Run, load_run
from jaxseg.tasks.segmentation import Scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the command line."""
  options.add_run(parser)
  parser.add_argument("--split", help="default: the run's evaluation split")
  parser.add_argument("--path", help="where the data lie now, if they moved")
  parser.add_argument(
    "--loader", choices=data.LOADERS, help="default: the run's"
  )
  parser.add_argument("--batch-size", type=int, help="default: the run's")
  parser.add_argument(
    "--absent",
    choices=tuple(metrics.ABSENT),
    help="a class in neither truth nor prediction is "
    + "; ".join(f"{name}: {text}" for name, text in metrics.ABSENT.items()),
  )
  options.add_inference(parser)
  parser.add_argument(
    "--json", action="store_true", help="print one JSON object"
  )


def run(args: argparse.Namespace) -> None:
  """Loads the run, scores it, prints."""
  sharding.join_processes()
  trained = load_run(args.workdir, args.checkpoint)
  config = trained.config
  options.override(config, args)
  for section, field, value in (
    ("data", "path", args.path),
    ("data", "loader", args.loader),
    ("eval", "batch_size", args.batch_size),
    ("eval", "absent", args.absent),
  ):
    if value is not None:
      config[section][field] = value
  if args.split:
    config.data.eval_split = args.split
  dataset = data.open(config, training=False)
  scores = _scores(trained, dataset)
  if jax.process_index() != 0:
    return
  about = _about(args.workdir, trained, dataset)
  if args.json:
    print(json.dumps({**about, **_plain(scores)}, allow_nan=False))
  else:
    print(_heading(about, config.task))
    print(tables.format_table(scores, config.data.class_names))


def _scores(trained: Run, dataset: data.Dataset) -> Scores:
  config = trained.config
  mesh = sharding.make_mesh()
  sharding.check_batch_size(config.eval.batch_size, mesh, "eval.batch_size")
  batches = dataset.eval_batches(
    process_index=jax.process_index(), process_count=jax.process_count()
  )
  count_step = scoring.make_count_step(
    trained.model, trained.task, trained.inference, mesh
  )
  return scoring.score(
    count_step,
    jax.device_put(trained.variables, sharding.replicated(mesh)),
    sharding.device_batches(batches, mesh),
    trained.task,
    total=-(-dataset.splits[dataset.eval_split] // config.eval.batch_size),
  )


def _about(workdir: str, trained: Run, dataset: data.Dataset) -> dict[str, Any]:
  """All that the numbers depend on."""
  config = trained.config
  how = trained.inference
  return {
    "workdir": str(workdir),
    "step": trained.step,
    "model": config.model.name,
    "dataset": config.data.name,
    "split": dataset.eval_split,
    "images": dataset.splits[dataset.eval_split],
    "canvas": list(config.eval.canvas or config.data.canvas),
    "inference": str(how),
    "scales": list(how.scales),
    "flip": how.flip,
    "crf": config.eval.crf,
    "absent": config.eval.absent,
  }


def _heading(about: dict[str, Any], task: str) -> str:
  height, width = about["canvas"]
  scored = "images" if task == "classification" else "every pixel"
  return "\n".join(
    [
      f"{about['model']} of {about['workdir']}, step {about['step']}, on "
      f"{about['dataset']}/{about['split']}: {about['images']} images",
      f"  {scored} at {height}x{width}; applied {about['inference']}",
      f"  a class that occurs nowhere: {metrics.ABSENT[about['absent']]}",
      "",
    ]
  )


def _plain(scores: Scores) -> dict[str, Any]:
  """Scores as JSON knows them: no NaN, no arrays."""
  return {
    key: value.tolist()
    if key == "confusion"
    else (None if math.isnan(value) else value)
    for key, value in scores.items()
  }
