"""The plan of the house, read off the imports."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]

# What each room may import, besides `errors`, `types`, `files` and itself.
ALLOWED = {
  "errors": set(),
  "files": set(),
  "types": set(),
  "config": {"errors"},
  "recipes": {"config", "data", "models", "backbones"},
  "layers": set(),
  "backbones": {"layers"},
  "models": {"layers", "backbones"},
  "augment": {"layers"},
  "regions": set(),
  "losses": {"regions"},
  "metrics": set(),
  "sharding": set(),
  "data": {"config"},
  "tasks": {"augment", "losses", "metrics", "regions"},
  "evaluation": {
    "models", "tasks", "metrics", "sharding", "layers",
  },
  "weights": {"models", "backbones", "layers"},
  "runs": {"config", "models", "tasks", "evaluation", "data"},
  "training": {
    "config", "runs", "models", "augment", "losses", "metrics", "sharding",
    "data", "evaluation", "weights", "tasks",
  },
}  # fmt: skip


def imports(path: Path):
  """(room, line) of each jaxseg import in a file."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module == "jaxseg":
      for alias in node.names:
        yield alias.name, node.lineno
    elif isinstance(node, ast.ImportFrom) and node.module:
      parts = node.module.split(".")
      if parts[0] == "jaxseg":
        yield parts[1], node.lineno
    elif isinstance(node, ast.Import):
      for alias in node.names:
        parts = alias.name.split(".")
        if parts[0] == "jaxseg" and len(parts) > 1:
          yield parts[1], node.lineno


def test_imports_run_one_way():
  wrong = []
  for path in sorted((ROOT / "jaxseg").rglob("*.py")):
    room = path.relative_to(ROOT / "jaxseg").parts[0].removesuffix(".py")
    if room not in ALLOWED:
      continue
    for imported, line in imports(path):
      if imported not in ALLOWED[room] | {room, "errors", "types", "files"}:
        wrong.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
  assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
  "module",
  ["models", "training.loop", "evaluation.scoring", "weights", "cli", "data"],
)
def test_no_tensorflow_is_loaded(module):
  code = (
    f"import sys, jaxseg.{module}; "
    "print([m for m in ('tensorflow', 'tensorflow_datasets', 'torch') "
    "if m in sys.modules])"
  )
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
  )
  assert out.stdout.strip() == "[]", out.stdout + out.stderr


def test_no_room_without_a_name():
  names = {path.name for path in ROOT.rglob("*.py")}
  assert not names & {"utils.py", "helpers.py", "misc.py", "common.py"}
