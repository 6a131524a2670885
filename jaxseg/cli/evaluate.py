"""Scores a trained network on a split of its data set.

  jaxseg evaluate --workdir=runs/pspnet-shapes-small
  jaxseg evaluate --workdir=runs/pspnet-camvid --split=test \\
    --config.eval.scales=0.5,1,1.5 --config.eval.flip
  jaxseg evaluate --workdir=runs/pspnet-folder --config.data.path=OTHER_FOLDER

Prints the IoU, the accuracy and the share of pixels of every class, and how
they were computed, so that scores can be compared; undefined scores are null
in JSON. The fields eval.*, data.path, data.eval_split, data.label_map and
data.bits of the run can be overridden. Another folder than the run's that has
no splits is scored as a whole, as is the run's own with --split=all.
"""

import argparse
from pathlib import Path
from typing import Any

import jax

from jaxseg import data, metrics, processes, sharding
from jaxseg.cli import config_options, options, output
from jaxseg.evaluation import scoring
from jaxseg.runs import compilation
from jaxseg.runs.run import Run, load_run
from jaxseg.tasks.task import Scores

USAGE = "--workdir=DIR [OPTION ...]"

# Evaluation reads the original files, so these fields change nothing.
_LOADING = ("data.prepared", "data.loader")
FIELDS = tuple(
  field for field in config_options.EVALUATION_FIELDS if field not in _LOADING
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_run(parser)
  parser.add_argument(
    "--split",
    metavar="NAME",
    help="split to score, or 'all' for a folder without splits; default: "
    "data.eval_split of the run",
  )
  options.add_overrides(
    parser, "override a field, as in --config.eval.mode=sliding"
  )
  options.add_json(parser, "the scores")
  options.add_processes(parser)


def run(args: argparse.Namespace) -> int:
  """Evaluates the run and prints its scores."""
  with processes.joined(args.coordinator, args.num_processes, args.process_id):
    _evaluate(args)
  return 0


def _evaluate(args: argparse.Namespace) -> None:
  with output.messages(to_stderr=args.json):
    trained = load_run(args.workdir, args.checkpoint)
    compilation.keep(args.workdir)
    config = trained.config
    trained_on = config.data.path
    config_options.override(config, args.overrides, allowed=FIELDS)
    if args.split:
      config.data.eval_split = args.split
    is_other = Path(config.data.path).resolve() != Path(trained_on).resolve()
    mesh = sharding.make_mesh()
    dataset = data.open(
      config,
      training=False,
      whole=is_other and not args.split,
      devices=mesh.size,
    )
    scores = _scores(trained, dataset, mesh)
  about = _about(args.workdir, trained, dataset)
  if args.json:
    output.print_json({**about, **scores})
  else:
    print(_heading(about, config.task))
    print(trained.task.table(scores))


def _scores(
  trained: Run, dataset: data.Dataset, mesh: jax.sharding.Mesh
) -> Scores:
  batches = dataset.eval_batches(
    process_index=jax.process_index(), process_count=jax.process_count()
  )
  if len(batches.shapes) > 1 and jax.process_index() == 0:
    print(batches)
  count_step = scoring.make_count_step(
    trained.model, trained.task, trained.inference, mesh
  )
  return scoring.score(
    count_step,
    sharding.replicate(trained.variables, mesh),
    sharding.device_batches(batches, mesh),
    trained.task,
    total=len(batches),
  )


def _about(workdir: str, trained: Run, dataset: data.Dataset) -> dict[str, Any]:
  """Returns everything that determines the scores."""
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
