"""The plan of the package, enforced: which rooms exist and what each imports.

A room is a package or a module directly below `jaxseg/`. Imports run one way,
so that a network can be read, and a loss tested, without the rest.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxseg"

ARRAYS = {"augment", "losses", "metrics", "regions", "sharding"}
NETWORKS = {"layers", "backbones", "models"}
# The rooms that each room imports, besides itself, `errors`, `types`, `files`.
ALLOWED = {
  "errors": set(),
  "types": set(),
  "files": set(),
  "config": set(),
  "config_rules": set(),
  "config_check": {"config_rules"},
  "augment": {"layers"},
  "losses": {"regions"},
  "metrics": set(),
  "regions": set(),
  "sharding": set(),
  "peers": set(),
  "processes": {"peers"},
  "layers": set(),
  "backbones": {"layers"},
  "models": {"layers", "backbones"},
  "detection": ARRAYS | NETWORKS,
  "data": ARRAYS | {"config", "config_check"},
  "tasks": {"augment", "losses", "metrics", "regions"},
  "evaluation": ARRAYS | NETWORKS | {"tasks"},
  "weights": NETWORKS,
  "analysis": NETWORKS,
  "runs": NETWORKS | {"config", "config_check", "data", "tasks", "evaluation"},
  # Building blocks of configuration files.
  "recipes": {"config", "data", "models", "backbones"},
}
BELOW_TRAINING = set(ALLOWED) - {"recipes"}
ALLOWED["training"] = BELOW_TRAINING
ALLOWED["cli"] = BELOW_TRAINING | {"training"}
ALLOWED["__main__"] = {"cli"}
ALLOWED["__init__"] = {"runs"}


def _rooms() -> Iterator[tuple[str, Path]]:
  """Yields the name of each room and its path."""
  for path in sorted(PACKAGE.iterdir()):
    if path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py"))):
      yield path.stem, path


def _files() -> Iterator[tuple[str, Path]]:
  """Yields each Python file with the name of its room."""
  for room, path in _rooms():
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
      yield room, file


def _imports(path: Path) -> Iterator[tuple[str, int]]:
  """Yields (room, line) of each import from the package in a file."""
  for node in ast.walk(ast.parse(path.read_text())):
    names = []
    if isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}:{node.lineno}: relative import"
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    for name in names:
      package, _, rest = name.partition(".")
      if package == "jaxseg" and rest:
        yield rest.partition(".")[0], node.lineno


def test_every_room_is_known():
  unknown = [name for name, _ in _rooms() if name not in ALLOWED]
  assert not unknown, f"rooms that the plan does not name: {unknown}"


def test_imports_run_one_way():
  wrong = []
  for room, path in _files():
    allowed = ALLOWED.get(room, set()) | {room, "errors", "types", "files"}
    for imported, line in _imports(path):
      if imported in ALLOWED and imported not in allowed:
        wrong.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
  assert not wrong, "\n".join(wrong)


def test_no_cycle_is_allowed():
  """Rooms can be sorted so that each imports earlier ones only."""
  left = {room: allowed - {room} for room, allowed in ALLOWED.items()}
  while left:
    free = {room for room, allowed in left.items() if not allowed & set(left)}
    assert free, f"these rooms import one another: {sorted(left)}"
    left = {room: allowed for room, allowed in left.items() if room not in free}


# The modules that read TensorFlow's formats; they are imported when needed.
USE_TENSORFLOW = {"jaxseg.data.builders", "jaxseg.data.pipeline"}
HEAVY = ("tensorflow", "tensorflow_datasets", "torch")
IMPORT_EACH = f"""
import importlib, sys
for name in sys.argv[1:]:
  importlib.import_module(name)
  loaded = [heavy for heavy in {HEAVY} if heavy in sys.modules]
  assert not loaded, f"import {{name}} loads {{loaded}}"
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "a device was touched"
"""


def test_imports_load_no_tensorflow_and_touch_no_device():
  modules = {"jaxseg"}
  for _, path in _files():
    parts = path.relative_to(ROOT).with_suffix("").parts
    modules.add(".".join(parts).removesuffix(".__init__"))
  modules -= USE_TENSORFLOW | {"jaxseg.__main__"}
  command = [sys.executable, "-c", IMPORT_EACH, *sorted(modules)]
  result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
  assert result.returncode == 0, result.stderr


def test_no_module_is_named_after_nothing():
  # A virtual environment in the clone has such modules.
  folders = [ROOT / name for name in ("jaxseg", "configs", "tests")]
  names = {path.name for folder in folders for path in folder.rglob("*.py")}
  assert not names & {"utils.py", "helpers.py", "misc.py", "common.py"}
