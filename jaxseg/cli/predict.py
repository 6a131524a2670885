"""Segments images with a trained network.

  jaxseg predict --workdir=runs/pspnet-shapes-small --output=masks photo.jpg
  jaxseg predict --workdir=runs/pspnet-folder --output=masks photos \\
    --config.eval.crf=deeplab_v2 --skip-existing

For each image, of any size, two files are written into DIR: NAME.png holds
the class ids at the size of the image, with the palette of the data set, and
NAME_overlay.png shows the classes over the image; legend.png shows the colours
of all classes. Images larger than the canvas of evaluation are shrunk to it, as
in training. Images that cannot be read are reported at the end, with exit
status 2; all others are segmented.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
import sys

from PIL import Image

from jaxseg import config_check
from jaxseg.cli import config_options, options, output
from jaxseg.data import decoding, pairing, progress
from jaxseg.errors import UserError
from jaxseg.evaluation import pictures
from jaxseg.runs import compilation
from jaxseg.runs.run import Run, load_run

USAGE = "--workdir=DIR --output=DIR [OPTION ...] IMAGE ..."

# Fields that change a prediction; the others of `eval` concern scores.
FIELDS = (
  "eval.canvas",
  "eval.mode",
  "eval.stride",
  "eval.scales",
  "eval.flip",
  "eval.dropout_samples",
  "eval.crf",
  "data.bits",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument(
    "inputs",
    nargs="+",
    metavar="IMAGE",
    help="image, or folder that is searched with its subfolders",
  )
  options.add_run(parser)
  parser.add_argument(
    "--output", metavar="DIR", required=True, help="folder of the results"
  )
  parser.add_argument(
    "--skip-existing",
    action="store_true",
    help="skip images that have both results",
  )
  options.add_overrides(
    parser, "override a field, as in --config.eval.mode=sliding"
  )
  options.add_json(parser, "the numbers of images")


def run(args: argparse.Namespace) -> int:
  """Segments the images; returns 2 if one of them could not be read."""
  folder = Path(args.output)
  check_output(folder)
  jobs = plan([Path(text) for text in args.inputs], folder)
  todo = [job for job in jobs if not (args.skip_existing and job.is_done())]
  unreadable: list[UserError] = []
  if todo:
    with output.messages(to_stderr=args.json):
      trained = load_run(args.workdir, args.checkpoint)
      compilation.keep(args.workdir)
      config_options.override(trained.config, args.overrides, allowed=FIELDS)
      config_check.check(trained.config, training=False)
      unreadable = segment(trained, todo)
      data = trained.config.data
      legend = pictures.legend(data.class_names, data.palette)
      pictures.save(legend_path(folder, jobs), legend)
  for error in unreadable:
    print(f"error: {error}", file=sys.stderr)
  written, skipped = len(todo) - len(unreadable), len(jobs) - len(todo)
  if args.json:
    output.print_json(
      {
        "output": args.output,
        "images": len(jobs),
        "written": written,
        "skipped": skipped,
        "failed": len(unreadable),
      }
    )
  else:
    note = f"; {skipped} skipped" if skipped else ""
    print(f"{written} of {len(jobs)} images segmented into {folder}{note}")
  return 2 if unreadable else 0


def segment(trained: Run, jobs: Sequence["Job"]) -> list[UserError]:
  """Segments the images of `jobs` and writes the results.

  Returns:
    The errors of the images that could not be read.
  """
  announce_shapes(trained, jobs)
  data = trained.config.data

  def work(number: int) -> UserError | None:
    job = jobs[number]
    try:
      image = decoding.read_image(job.source)
      image = decoding.eight_bits(image, data.bits, str(job.source))
    except UserError as error:
      return error
    ids = trained.predict(image)
    # The ids are written last: if they exist, the overlay does too.
    overlay = pictures.overlay(image, ids, data.palette)
    pictures.save(job.overlay, Image.fromarray(overlay))
    pictures.save(job.ids, pictures.indexed(ids, data.palette))
    return None

  results = progress.in_order(work, len(jobs), title="predict")
  return [error for error in results if error is not None]


def announce_shapes(trained: Run, jobs: Sequence["Job"]) -> None:
  """Prints how often the network is compiled, unless it is once."""

  def shape(number: int) -> tuple[int, int] | None:
    try:
      size, _ = decoding.image_header(jobs[number].source)
    except UserError:
      return None  # Reported when the image is read.
    return trained.input_size(size)

  shapes = set(progress.in_order(shape, len(jobs))) - {None}
  if len(shapes) > 1:
    print(
      f"segmenting {len(jobs)} images in {len(shapes)} shapes; each is "
      "compiled once"
    )


@dataclasses.dataclass(frozen=True)
class Job:
  """An image and the files that are written for it.

  Attributes:
    source: The image.
    ids: Indexed PNG of its class ids.
    overlay: PNG of the classes over the image.
  """

  source: Path
  ids: Path
  overlay: Path

  def is_done(self) -> bool:
    """Returns whether both results exist."""
    return self.ids.exists() and self.overlay.exists()


def check_output(folder: Path) -> None:
  """Raises UserError if the folder of the results is, or lies in, a file."""
  for path in (folder, *folder.absolute().parents):
    if path.exists():
      if not path.is_dir():
        raise UserError(
          f"--output={folder}: {path} is a file; expected a folder, which is "
          "created if it does not exist"
        )
      return


def legend_path(folder: Path, jobs: Sequence[Job]) -> Path:
  """Returns legend.png in a folder, or another name if an image has this."""
  results = {path.name for job in jobs for path in (job.ids, job.overlay)}
  name = "legend.png"
  while name in results:
    name = f"class_{name}"
  return folder / name


def plan(inputs: Sequence[Path], output: Path) -> list[Job]:
  """Lists all images of the inputs with distinct names for their results.

  Args:
    inputs: Images and folders.
    output: Folder of the results.

  Raises:
    UserError: An input does not exist, a folder has no images or is that of the
      results, or a result would overwrite an image or another result.
  """
  for path in inputs:
    if path.is_dir() and path.resolve() == output.resolve():
      raise UserError(
        f"--output={output} is searched for images, so the next run would "
        "segment the results of this one; choose another folder, for example "
        f"--output={output / 'masks'}, which is not searched"
      )
  # Unlike `Path.resolve`, `realpath` accepts links that lead nowhere.
  found = [p for path in inputs for p in _images(path, output)]
  sources = list({os.path.realpath(p): p for p in found}.values())
  jobs = [
    Job(source, output / f"{name}.png", output / f"{name}_overlay.png")
    for source, name in zip(sources, unique_names(sources), strict=True)
  ]
  taken = {os.path.realpath(source): source for source in sources}
  for job in jobs:
    for path in (job.ids, job.overlay):
      result = os.path.realpath(path)
      other = taken.setdefault(result, job.source)
      if other is not job.source or result == os.path.realpath(job.source):
        raise UserError(
          f"{path}, the result for {job.source}, would overwrite {other} or "
          "its result; choose another --output, or run the command once for "
          "each"
        )
  return jobs


def _images(path: Path, output: Path) -> list[Path]:
  """Returns the image, or all images of the folder except earlier results."""
  if path.is_file():
    return [path]
  if not path.is_dir():
    raise UserError(f"{path} does not exist; expected an image or a folder")
  # A link that leads nowhere is an image that cannot be read.
  found = [
    p
    for p in sorted(path.rglob("*"))
    if pairing.is_image(p)
    and not p.is_dir()
    and output.resolve() not in Path(os.path.realpath(p)).parents
  ]
  if not found:
    raise UserError(f"{path} has no image files; expected PNG, JPEG, ...")
  return found


def unique_names(paths: Sequence[Path]) -> list[str]:
  """Returns a distinct name for the results of each image.

  The name is the stem of the image. Images with the same stem are prefixed with
  as many of their folders as make the names distinct, and images of the same
  folder are suffixed with their type (`a_png`, `a_jpg`).
  """
  groups = defaultdict(list)
  for path in paths:
    groups[path.stem].append(path)
  names = {
    path: name
    for group in groups.values()
    for path, name in zip(group, _distinct(group), strict=True)
  }
  return [names[path] for path in paths]


def _distinct(paths: Sequence[Path]) -> list[str]:
  for with_suffix in (False, True):
    parts = [_parts(path, with_suffix) for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
      names = ["_".join(part[-depth:]) for part in parts]
      if len(set(names)) == len(names):
        return names
  return names


def _parts(path: Path, with_suffix: bool) -> tuple[str, ...]:
  path = path.absolute()
  last = f"{path.stem}_{path.suffix[1:]}" if with_suffix else path.stem
  return (*path.parent.parts[1:], last)
