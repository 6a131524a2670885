"""What the README says of the networks is so."""

import functools
from pathlib import Path
import re

import jax
import jax.numpy as jnp
import pytest

from jaxseg import models

ROOT = Path(__file__).parents[1]


def table() -> dict[str, list[str]]:
  """Cells of the networks' table by the name in its first one."""
  lines = (ROOT / "README.md").read_text().splitlines()
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


def test_every_network_has_a_row():
  assert set(TABLE) == models.MODELS.keys() - {"classifier"}


@pytest.mark.parametrize("name", TABLE)
def test_parameters_are_counted(name):
  model = models.create(name, num_classes=21)
  image = jax.ShapeDtypeStruct((1, 65, 97, 3), jnp.float32)
  init = functools.partial(model.init, train=False)
  params = jax.eval_shape(init, jax.random.key(0), image)["params"]
  count = sum(a.size for a in jax.tree.leaves(params))
  assert TABLE[name][1] == f"{count:,}"


@pytest.mark.parametrize("name", TABLE)
def test_configurations_exist(name):
  (path,) = re.findall(r"`(configs/\w+\.py)`", TABLE[name][3])
  assert (ROOT / path).is_file()
