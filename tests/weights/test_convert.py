"""`jaxseg convert` writes files that `config.init` reads."""

import pytest

from jaxseg import cli, weights


def test_convert_writes_what_init_reads(resnet18_file, tmp_path, capsys):
  out = tmp_path / "resnet18.safetensors"
  cli.main(["convert", "--model=resnet18", resnet18_file, str(out)])
  # torchvision's 11,689,512 with 1000 classes: 998 * 513 less.
  assert "11,177,538 of 11,177,538 parameters" in capsys.readouterr().out
  assert "stem" in weights.load(out)["params"]["backbone"]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--model=resnet18", "--num-classes=5"], "has 2 classes; leave out this"),
    (["--model=resnet18", "--num-classes=-1"], "expected 1 or more"),
    (["--model=resnet18", "--skip=.*"], "--skip=.*: matches every parameter"),
    (["--model=resnet18", "--skip=haed"], "--skip=haed: matches no parameter"),
    (["--model=unet"], "the file holds another network"),
    (["--model=resnet19"], "did you mean 'resnet18'"),
    (["--model=resnet18", "--library=tensorflow"], "known: timm, torchvision"),
  ],
)
def test_errors_are_one_line_and_write_nothing(
  resnet18_file, tmp_path, capsys, arguments, message
):
  out = tmp_path / "out.npz"
  with pytest.raises(SystemExit) as caught:
    cli.main(["convert", *arguments, resnet18_file, str(out)])
  assert caught.value.code == 2
  lines = capsys.readouterr().err.splitlines()
  assert lines[-1].startswith("error: ") and message in lines[-1]
  assert not out.exists()


def test_skip_leaves_out_the_head(resnet18_file, tmp_path):
  out = tmp_path / "out.npz"
  words = ["--model=resnet18", "--skip=head", "--num-classes=9"]
  cli.main(["convert", *words, resnet18_file, str(out)])
  assert list(weights.load(out)["params"]) == ["backbone"]
