"""Segments images with a trained network.

For each image, of any size, writes <name>.png, the class ids at the image's
own size with the class palette, and <name>_overlay.png, the classes over the
image. Folders are searched through. Images larger than the network's canvas
are shrunk to fit it, as in training, and the result enlarged again. An image
that cannot be read is reported at the end, with exit status 2; the others are
written.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
import dataclasses
from pathlib import Path
import sys

from PIL import Image

from jaxseg.cli import options
from jaxseg.data import decoding, pairing, progress
from jaxseg.errors import UserError
from jaxseg.evaluation import pictures
from jaxseg.runs.run import load_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the command line."""
  parser.add_argument(
    "inputs", nargs="+", metavar="IMAGE_OR_FOLDER", help="what to segment"
  )
  parser.add_argument("--output", required=True, help="folder for the results")
  options.add_run(parser)
  options.add_inference(parser)
  parser.add_argument(
    "--skip-existing",
    action="store_true",
    help="leave images whose results are there",
  )


def run(args: argparse.Namespace) -> int:
  """Plans, loads the run, predicts; 2 if an image could not be read."""
  output = Path(args.output)
  jobs = plan([Path(text) for text in args.inputs], output)
  todo = [job for job in jobs if not (args.skip_existing and job.is_done())]
  unreadable: list[UserError] = []
  if todo:
    trained = load_run(args.workdir, args.checkpoint)
    options.override(trained.config, args)
    # Compiled before threads ask for it.
    _ = trained.compiled
    palette = trained.config.data.palette

    def work(number: int) -> UserError | None:
      job = todo[number]
      try:
        image = decoding.read_image(job.source)
      except UserError as error:
        return error
      ids = trained.predict(image)
      # The id map last: where it is, the overlay is too.
      overlay = pictures.overlay(image, ids, palette)
      pictures.save(job.overlay, Image.fromarray(overlay))
      pictures.save(job.ids, pictures.indexed(ids, palette))
      return None

    results = progress.in_order(work, len(todo), title="predict")
    unreadable = [error for error in results if error is not None]
  for error in unreadable:
    print(f"error: {error}", file=sys.stderr)
  skipped = len(jobs) - len(todo)
  print(
    f"{len(todo) - len(unreadable)} of {len(jobs)} images segmented into "
    f"{output}" + (f", {skipped} were there already" if skipped else "")
  )
  return 2 if unreadable else 0


@dataclasses.dataclass(frozen=True)
class Job:
  """An image and what is written for it."""

  source: Path
  ids: Path
  overlay: Path

  def is_done(self) -> bool:
    """Whether both results exist."""
    return self.ids.exists() and self.overlay.exists()


def plan(inputs: Sequence[Path], output: Path) -> list[Job]:
  """All images of the inputs, each with names of its own in `output`.

  Raises:
    UserError: an input that does not exist, a folder without images, or an
      output that would overwrite an input.
  """
  sources = list(
    {p.resolve(): p for path in inputs for p in _images(path, output)}.values()
  )
  jobs = [
    Job(source, output / f"{name}.png", output / f"{name}_overlay.png")
    for source, name in zip(sources, unique_names(sources), strict=True)
  ]
  taken = {source.resolve(): source for source in sources}
  for job in jobs:
    for path in (job.ids, job.overlay):
      other = taken.setdefault(path.resolve(), job.source)
      if other is not job.source or path.resolve() == job.source.resolve():
        raise UserError(
          f"{path}, the result for {job.source}, would overwrite {other} or "
          "its result; choose another --output folder, or segment them apart"
        )
  return jobs


def _images(path: Path, output: Path) -> list[Path]:
  """The image, or all images below the folder except earlier results."""
  if path.is_file():
    return [path]
  if not path.is_dir():
    raise UserError(f"{path} does not exist; expected an image or a folder")
  hidden, ours = output.resolve(), path.resolve()
  found = [
    p
    for p in sorted(path.rglob("*"))
    if p.is_file()
    and pairing.is_image(p)
    and (hidden == ours or hidden not in p.resolve().parents)
  ]
  if not found:
    raise UserError(f"{path} holds no image files; expected PNG, JPEG, ...")
  return found


def unique_names(paths: Sequence[Path]) -> list[str]:
  """The stem of each; where several share one, folders are put before it.

  As many folders as tell them apart, then the suffix (`a_png`, `a_jpg`).
  """
  groups = defaultdict(list)
  for path in paths:
    groups[path.stem].append(path)
  names = {
    path: name
    for group in groups.values()
    for path, name in zip(group, _told_apart(group), strict=True)
  }
  return [names[path] for path in paths]


def _told_apart(paths: Sequence[Path]) -> list[str]:
  for with_suffix in (False, True):
    parts = [_parts(path, with_suffix) for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
      names = ["_".join(part[-depth:]) for part in parts]
      if len(set(names)) == len(names):
        return names
  return names


def _parts(path: Path, with_suffix: bool) -> tuple[str, ...]:
  path = path.resolve()
  last = f"{path.stem}_{path.suffix[1:]}" if with_suffix else path.stem
  return (*path.parent.parts[1:], last)
