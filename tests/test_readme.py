"""Claims of the README and of docs/ hold."""

import functools
from pathlib import Path
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()


def table() -> dict[str, list[str]]:
  """Returns the cells of each row of the table of networks, by network."""
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
  """The second Python example, word for word."""
  example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
  assert len(re.findall(r"^\w[^\n]* = |^\w[^\n]*\(", example, re.M)) <= 10
  names = {}
  exec(compile(example, "README.md", "exec"), names)
  assert np.isfinite(names["metrics"]["loss"])
  assert names["state"].step == 1
