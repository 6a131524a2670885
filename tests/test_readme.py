"""Claims of the README and of docs/ hold."""

import functools
import importlib
import operator
from pathlib import Path
import pkgutil
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.backbones import BACKBONES
from jaxseg.cli import COMMANDS, config_options, convert
from jaxseg.cli.parser import CommandParser
from jaxseg.config import default_workdir
from jaxseg.evaluation import inference

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
# Language, or "" for a block of commands, and text of a code block.
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def table() -> dict[str, list[str]]:
  """Returns the cells of the table of networks, by the name in the first."""
  lines = README.splitlines()
  start = next(
    i for i, line in enumerate(lines) if line.startswith("| network | paper")
  )
  rows = {}
  for line in lines[start + 2 :]:
    if not line.startswith("|"):
      break
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    rows[cells[0].split("`")[1]] = cells[1:]
  return rows


TABLE = table()


def test_it_is_short():
  assert len(README.splitlines()) <= 150


def test_every_network_has_a_row_and_a_configuration():
  assert set(TABLE) == models.MODELS.keys() - {"classifier"}
  for name in TABLE:
    assert (ROOT / f"configs/{name}.py").is_file()


@pytest.mark.parametrize("name", TABLE)
def test_parameters_and_strides_are_those_of_the_network(name):
  model = models.create(name, num_classes=21)
  image = jax.ShapeDtypeStruct((1, 65, 97, 3), jnp.float32)
  init = functools.partial(model.init, train=False)
  params = jax.eval_shape(init, jax.random.key(0), image)["params"]
  count = sum(a.size for a in jax.tree.leaves(params))
  assert TABLE[name][1] == f"{count:,}"
  stride = TABLE[name][2]
  if stride != "1":  # A decoder returns to full resolution.
    assert stride == str(getattr(model.backbone, "output_stride", 32))


def commands() -> list[tuple[str, ...]]:
  """Returns the jaxseg commands of all code blocks, split into words."""
  found = []
  for page in PAGES:
    for language, block in BLOCK.findall(page.read_text()):
      for line in () if language else re.split(r"\n|&&", block):
        words = shlex.split(line, comments=True)
        if words[:2] == ["python", "train.py"]:
          found.append(("train", *words[2:]))
        elif words[:1] == ["jaxseg"]:
          found.append(tuple(words[1:]))
  return found


def inline_code(page: Path) -> list[str]:
  """Returns the text between backticks, without code blocks."""
  return re.findall(r"`([^`\n]+)`", BLOCK.sub("", page.read_text()))


def config_of_run(workdir: str):
  """Returns the configuration whose default work directory is `workdir`."""
  name, *words = Path(workdir).name.split("-")
  config = config_options.read(f"configs/{name}.py:{','.join(words)}")
  assert default_workdir(config) == workdir
  return config


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_can_be_typed(command, monkeypatch):
  """Options exist, files and words load, and overrides apply."""
  monkeypatch.chdir(ROOT)
  name, *argv = command
  module = importlib.import_module(f"jaxseg.cli.{name}")
  parser = CommandParser(name, module.USAGE, module.__doc__)
  module.add_arguments(parser)
  args = parser.parse_args(argv)
  if name == "train":
    config = config_options.read(args.config)
    config_options.override(config, args.overrides)
    if config.init.model.startswith("runs/"):
      config_of_run(config.init.model)
  elif name == "convert":
    assert args.model in {*convert.NETWORKS, *BACKBONES}
    assert args.library in (None, *convert.LIBRARIES)
  else:
    config = config_of_run(args.workdir)
    allowed = getattr(module, "FIELDS", config_options.EVALUATION_FIELDS)
    config_options.override(config, args.overrides, allowed=allowed)
    if not config.augment.crop:  # The crop of a folder follows from its images.
      config.augment.crop = (64, 64)
    inference.create(config)


def test_every_command_has_an_example():
  assert {command[0] for command in commands()} == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_fields_and_configurations_in_the_text_exist(page, monkeypatch):
  monkeypatch.chdir(ROOT)
  for code in inline_code(page):
    config = config_options.read("configs/pspnet.py:camvid")
    for word in shlex.split(code) if code.startswith("--config") else ():
      field, equals, _ = word.removeprefix("--config.").partition("=")
      if word.startswith("--config="):
        config_options.read(word.removeprefix("--config="))
      elif equals and field != "FIELD":
        config_options.override(config, [word])
      elif field != "FIELD":
        functools.reduce(operator.getitem, field.split("."), config)
    if match := re.fullmatch(r"(?:configs/)?(\w+\.py(:[\w,]+)?)", code):
      config_options.read(f"configs/{match[1]}")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_names_in_the_text_exist(page):
  for code in inline_code(page):
    if match := re.match(r"jaxseg(\.\w+)+", code):
      pkgutil.resolve_name(match[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_files_exist(page):
  text = page.read_text()
  targets = re.findall(r"\]\(([^)#:]+)\)", text)
  assert targets or page != PAGES[0]
  for target in targets:
    assert (page.parent / target).exists(), target
  for path in re.findall(r"`((?:configs|docs|jaxseg|tests)/[\w./]*)`", text):
    assert (ROOT / path).exists(), path


def test_the_training_step_runs():
  """The second Python example runs as it is printed."""
  example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
  assert len(re.findall(r"^\w[^\n]* = |^\w[^\n]*\(", example, re.M)) <= 10
  names = {}
  exec(compile(example, "README.md", "exec"), names)
  assert np.isfinite(names["metrics"]["loss"])
  assert names["state"].step == 1
