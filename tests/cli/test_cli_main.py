"""The dispatcher: names, help, exit status, and what it does not import."""

import argparse
import importlib
import subprocess
import sys

import pytest

from jaxseg import cli


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_overview_lists_every_command(argv, capsys):
  assert cli.main(argv) == 0
  out = capsys.readouterr().out
  for name, text in cli.COMMANDS.items():
    assert name in out and text in out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_explains_itself(name, capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main([name, "--help"])
  assert exit_.value.code == 0
  module = importlib.import_module(f"jaxseg.cli.{name.replace('-', '_')}")
  out = capsys.readouterr().out
  assert module.__doc__.splitlines()[0] in out
  module.add_arguments(argparse.ArgumentParser())


def test_misspelt_command_is_one_line_and_status_2(capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main(["evalute"])
  assert exit_.value.code == 2
  err = capsys.readouterr().err
  assert err.count("\n") == 1 and "did you mean 'evaluate'" in err


@pytest.mark.parametrize(
  "option, words",
  [
    ("--checkpoint=newest", "expected best, last or the number of a step"),
    ("--scales=0.5;1", "expected numbers such as 0.5,1,1.5"),
    ("--mode=slide", "invalid choice"),
  ],
)
def test_bad_options_are_explained(option, words, capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main(["evaluate", "--workdir=nowhere", option])
  assert exit_.value.code == 2
  assert words in capsys.readouterr().err


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


def test_help_needs_no_jax():
  code = (
    "import sys\n"
    "from jaxseg import cli\n"
    "cli.main(['--help'])\n"
    "assert 'jax' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
