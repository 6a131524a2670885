"""Configurations on the command line: files, fields, values, mistakes."""

from pathlib import Path
import re

from ml_collections import ConfigDict
import pytest

from jaxseg.cli import config_options
from jaxseg.config import BackboneFields, base
from jaxseg.errors import UserError


@pytest.mark.parametrize(
  "argv, others, overrides",
  [
    (["--a=1", "--config.b.c=2", "d"], ["--a=1", "d"], ["--config.b.c=2"]),
    (["--config.b.c", "2", "d"], ["d"], ["--config.b.c=2"]),
    (["--config.b.c", "-2"], [], ["--config.b.c=-2"]),
    (["--config.b.c", "--a"], ["--a"], ["--config.b.c"]),
    (["--config", "x.py:w", "--config.b", "2"], ["--config", "x.py:w"],
     ["--config.b=2"]),
    (["--config.b=x=y"], [], ["--config.b=x=y"]),
    # A boolean field needs no value.
    (["--config.eval.flip", "a.png"], ["a.png"], ["--config.eval.flip"]),
    (["--config.eval.flip", "false", "a.png"], ["a.png"],
     ["--config.eval.flip=false"]),
  ],
)  # fmt: skip
def test_overrides_are_separated_from_other_arguments(argv, others, overrides):
  assert config_options.split(argv) == (others, overrides)


@pytest.mark.parametrize(
  "word, value",
  [
    ("train.steps=7", 7),
    ("optimizer.learning_rate=1", 1.0),
    ("optimizer.learning_rate=1e-3", 1e-3),
    ("augment.flip=False", False),
    ("eval.flip", True),
    ("data.path=a folder", "a folder"),
    ("data.path=", ""),
    ("eval.crf=deeplab_v2,iterations=5", "deeplab_v2,iterations=5"),
    ("data.canvas=(384, 512)", (384, 512)),
    ("eval.scales=0.5,1", (0.5, 1.0)),
    ("init.skip=head", ("head",)),
    ("loss.heads={'logits': 0.5}", ConfigDict({"logits": 0.5})),
    # A field of the network without a type.
    ("model.crop=12", 12),
    ("model.crop=(1, 2)", (1, 2)),
    ("model.crop=same", "same"),
    ("model.backbone.name=resnet18", "resnet18"),
  ],
)
def test_values(word, value):
  config = base()
  with config.unlocked():
    config.model = {
      "name": "pspnet",
      "crop": None,
      "backbone": {"name": "resnet50"},
    }
  config_options.override(config, [f"--config.{word}"])
  changed = config
  for name in word.partition("=")[0].split("."):
    changed = changed[name]
  assert changed == value and type(changed) is type(value)
  if isinstance(value, tuple):
    assert [type(v) for v in changed] == [type(v) for v in value]


def test_repeated_overrides():
  config = base()
  config_options.override(
    config,
    [
      "--config.train.steps=1",
      "--config.init.skip=a",
      "--config.train.steps=2",
      "--config.init.skip=b",
    ],
  )
  assert config.train.steps == 2 and config.init.skip == ("a", "b")


@pytest.mark.parametrize(
  "word, expected",
  [
    ("train.step=3", ["config.train has no field 'step'", "'steps'"]),
    ("train.step=3", ["batch_size, checkpoint_every, eval_every"]),
    ("trian.steps=3", ["config has no field 'trian'", "did you mean 'train'"]),
    ("train.steps.x=3", ["config.train.steps is a value"]),
    ("train.steps=many", ["expected an integer such as 1000"]),
    ("train.steps=1.5", ["expected an integer"]),
    ("train.steps", ["--config.train.steps: expected an integer"]),
    ("optimizer.learning_rate=x", ["expected a number such as 0.01"]),
    ("augment.flip=perhaps", ["expected True or False"]),
    ("data.canvas=(1, 2", ["expected a tuple such as '(64, 64)'"]),
    ("data.canvas=0.5,0.5", ["expected a tuple such as '(64, 64)'"]),
    ("eval.scales=0.5;1", ["expected a tuple such as '(1.0,)'"]),
    ("data=folder", ["a field of this section", "--config.data.name=VALUE"]),
    ("data.path", ["expected a value"]),
    ("norm.momentum=x", ["None for the paper's value, or a number from 0"]),
    ("model.name=unet", ["'pspnet'", "configs/unet.py"]),
  ],
)
def test_mistakes_name_the_option_and_the_fix(word, expected):
  with pytest.raises(UserError) as error:
    config_options.override(base(), [f"--config.{word}"])
  text = str(error.value)
  assert text.startswith(f"--config.{word}: ") and "\n" not in text
  for part in expected:
    assert part in text


@pytest.mark.parametrize(
  "word, reason",
  [
    ("model.name=unet", "config.model.name is fixed by the trained run"),
    ("data.canvas=(1, 2)", "config.data.canvas is fixed by the trained run"),
    ("data.path_=x", "config.data has no field 'path_'"),
    ("data.loader=resident", "config.data.loader has no effect on this"),
  ],
)
def test_fields_that_a_command_does_not_take(word, reason):
  with pytest.raises(UserError) as error:
    config_options.override(
      base(), [f"--config.{word}"], allowed=("eval.", "data.path")
    )
  assert reason in str(error.value)
  if "has no field" not in reason:
    assert str(error.value).endswith("overridden: eval.*, data.path")


def test_fields_that_a_command_takes():
  config = base()
  words = ["--config.eval.mode=sliding", "--config.data.path=x"]
  config_options.override(config, words, allowed=("eval.", "data.path"))
  assert config.eval.mode == "sliding" and config.data.path == "x"


CONFIG = """
from jaxseg.config import BackboneFields, base

def get_config(words=""):
  c = base()
  c.data.path = words
  return c
"""


def test_words_are_passed_to_the_file(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(CONFIG)
  assert config_options.read(str(path)).data.path == ""
  config = config_options.read(f"{path}:folder,small")
  assert config.data.path == "folder,small" and config.is_locked


@pytest.mark.parametrize(
  "name, text, words",
  [
    ("minne.py", CONFIG, ["no such file", "did you mean", "mine.py"]),
    ("mine", CONFIG, ["no such file", "did you mean", "mine.py"]),
    ("", CONFIG, ["is a folder", "configs/pspnet.py:camvid"]),
    ("README.md", CONFIG, ["is no Python file", "configs/pspnet.py:camvid"]),
    ("mine.py", "x = 1", ["no function get_config"]),
    ("mine.py", "get_config = 1", ["no function get_config"]),
    ("mine.py", "def get_config(): return {}", ["returned dict", "ConfigDict"]),
    ("mine.py", "def get_config(): pass", ["returned NoneType", "ConfigDict"]),
    ("mine.py:folder", "def get_config(): pass", ["too many", 'arg=""']),
  ],
)
def test_files_that_are_no_configuration(tmp_path, name, text, words):
  for file in ("mine.py", "README.md"):
    (tmp_path / file).write_text(text)
  with pytest.raises(UserError) as error:
    config_options.read(f"{tmp_path}/{name}")
  for word in ("--config=", *words):
    assert word in str(error.value)
  assert "\n" not in str(error.value)


def test_an_empty_name_is_no_folder():
  for text in ("", ":camvid"):
    with pytest.raises(UserError, match="the name of the file is empty"):
      config_options.read(text)


@pytest.mark.parametrize(
  "line, words",
  [
    ("c.train.stpes = 4", ["AttributeError", "stpes", "steps"]),
    ("c.train.update(batchsize=4)", ["KeyError", "batchsize", "batch_size"]),
    ('c.train.steps = "many"', ["TypeError", "steps"]),
    ("c.train.steps = nothing", ["NameError: name 'nothing'"]),
    ("import nowhere", ["ModuleNotFoundError: No module named 'nowhere'"]),
    ("c.train.steps = = 4", ["invalid syntax"]),
    ('raise Exception("two\\nlines")', ["Exception: two lines"]),
  ],
)
def test_exceptions_of_a_file_are_one_line_with_its_line(tmp_path, line, words):
  path = tmp_path / "mine.py"
  path.write_text(CONFIG.replace("  c.data.path = words", f"  {line}"))
  with pytest.raises(UserError) as error:
    config_options.read(str(path))
  text = str(error.value)
  assert text.startswith(f"{path}, line 6 ({line}): ")
  assert "\n" not in text and len(text) < len(str(path)) + 400
  for word in words:
    assert word in text


def test_an_error_in_a_function_that_the_file_calls_names_the_call(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(CONFIG.replace("base()", "base(1)"))
  with pytest.raises(UserError, match=r"line 5 \(c = base\(1\)\): TypeError"):
    config_options.read(str(path))


def test_another_backbone_is_a_word():
  config = base()
  with config.unlocked():
    config.model.backbone = BackboneFields({"name": "resnet50", "width": 64})
  with pytest.raises(UserError, match="a word after the colon.*backbone.width"):
    config_options.override(config, ["--config.model.backbone=resnet18"])


def test_a_file_beside_train_py_is_suggested_in_any_folder(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  path = Path(__file__).parents[2] / "configs" / "pspnet.py"
  with pytest.raises(UserError, match=re.escape(f"did you mean '{path}'")):
    config_options.read("configs/pspnet.py:camvid")
