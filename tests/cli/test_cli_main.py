"""The dispatcher: commands, help, exit status, imports."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest

import jaxseg
from jaxseg import cli
from jaxseg.cli import config_options
from jaxseg.cli.parser import CommandParser
from jaxseg.config import base

PROCESSES = {"--coordinator", "--num-processes", "--process-id"}
RUN = {"--workdir", "--checkpoint", "--config.FIELD", "--json"}
OPTIONS = {
  "train": PROCESSES | {"--config", "--config.FIELD", "--workdir", "--json"},
  "evaluate": PROCESSES | RUN | {"--split"},
  "predict": RUN | {"--output", "--skip-existing"},
  "convert": {
    "--model", "--library", "--num-classes", "--backbone", "--skip", "--json",
    "--config.FIELD",
  },
}  # fmt: skip


def module_of(name):
  return importlib.import_module(f"jaxseg.cli.{name}")


def parser_of(name):
  module = module_of(name)
  parser = CommandParser(name, module.USAGE, module.__doc__)
  module.add_arguments(parser)
  return parser


def examples(name):
  """Command lines in the help of a command, without `jaxseg NAME`."""
  text = module_of(name).__doc__.replace("\\\n", " ")
  lines = re.findall(rf"^  jaxseg {name} (.+)$", text, re.MULTILINE)
  return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_overview_lists_every_command(argv, capsys):
  assert cli.main(argv) == 0
  out = capsys.readouterr().out
  for name, text in cli.COMMANDS.items():
    assert name in out and text in out


@pytest.mark.parametrize(
  "argv", [["--version"], ["train", "--version"], ["evaluate", "--version"]]
)
def test_the_version_is_printed(argv, capsys):
  assert cli.main(argv) == 0
  assert capsys.readouterr().out == f"jaxseg {jaxseg.__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_fits_a_screen_and_lists_only_its_own_options(name, capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main([name, "--help"])
  assert exit_.value.code == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) <= 30
  assert max(map(len, lines)) <= 80
  assert module_of(name).__doc__.splitlines()[0] in lines
  listed = [re.match(r"  (?:-h, )?(--[\w.-]+)", line) for line in lines]
  assert {m[1] for m in listed if m} == OPTIONS[name] | {"--help"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_of_the_help_parse(name):
  lines = examples(name)
  assert lines
  for line in lines:
    args = parser_of(name).parse_args(line)
    if name == "train":
      config = config_options.read(args.config)
      config_options.override(config, args.overrides)
    else:
      allowed = config_options.EVALUATION_FIELDS
      config_options.override(base(), args.overrides, allowed=allowed)


@pytest.mark.parametrize(
  "argv, words",
  [
    (["evalute"], ["did you mean 'evaluate'", "train"]),
    (["evaluate"], ["required: --workdir", "jaxseg evaluate --help"]),
    (["train"], ["required: --config"]),
    (["evaluate", "--wrokdir=w"], ["did you mean '--workdir'", "--split"]),
    (["evaluate", "--work=w"], ["unknown option", "'--work'"]),
    (["evaluate", "--workdir=w", "x"], ["unexpected argument 'x'"]),
    (["evaluate", "--workdir"], ["--workdir", "expected one argument"]),
    (
      ["evaluate", "--workdir=w", "--checkpoint=newest"],
      ["'newest': expected best, last or the number of a step"],
    ),
    (["train", "--config=c.py", "--num_processes=2"], ["'--num-processes'"]),
  ],
  ids=" ".join,
)
def test_bad_command_lines_are_one_line_and_status_2(argv, words, capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main(argv)
  assert exit_.value.code == 2
  err = capsys.readouterr().err
  assert err.startswith("error: ") and err.count("\n") == 1
  for word in words:
    assert word in err


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_missing_work_directory_is_one_line(command, capsys, tmp_path):
  rest = [f"--workdir={tmp_path / 'none'}"]
  if command == "predict":
    (tmp_path / "a.png").write_bytes(b"")
    rest += [str(tmp_path / "a.png"), f"--output={tmp_path / 'out'}"]
  with pytest.raises(SystemExit) as exit_:
    cli.main([command, *rest])
  assert exit_.value.code == 2
  err = capsys.readouterr().err
  assert str(tmp_path / "none") in err and err.count("\n") == 1


def test_interrupted_commands_have_status_130(monkeypatch, capsys):
  def interrupt(args):
    raise KeyboardInterrupt

  monkeypatch.setattr("jaxseg.cli.convert.run", interrupt)
  assert cli.main(["convert", "--model=resnet18", "a.pth", "b.npz"]) == 130
  assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"]])
def test_help_needs_no_jax(argv):
  code = (
    "import sys\n"
    "from jaxseg import cli\n"
    "try:\n"
    f"  cli.main({argv})\n"
    "except SystemExit:\n"
    "  pass\n"
    "assert 'jax' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
