"""evaluate: scores, how they were computed, overrides, JSON."""

import json

import numpy as np
from PIL import Image
import pytest

from jaxseg import cli
from jaxseg.cli import evaluate


@pytest.fixture
def score(run, monkeypatch, tmp_path):
  """Evaluates five images of one colour; part of the last mask is wrong."""
  monkeypatch.setattr(evaluate, "load_run", lambda workdir, which: run)
  rng = np.random.default_rng(0)
  for split, count in (("train", 2), ("val", 5)):
    for kind in ("images", "masks"):
      (tmp_path / "data" / kind / split).mkdir(parents=True)
    for i in range(count):
      k = i % 2  # red or green; blue and dark occur nowhere
      image = rng.integers(0, 20, (20, 28, 3)).astype(np.uint8)
      image[..., k] = 200
      mask = np.full((20, 28), k + 1, np.uint8)
      mask[:2] = 255
      if i == 4:
        mask[2:11, :14] = 2  # 126 red pixels that claim to be green
      for kind, array in (("images", image), ("masks", mask)):
        path = tmp_path / "data" / kind / split / f"{i}.png"
        Image.fromarray(array).save(path)
  with run.config.unlocked():
    run.config.data.update(
      name="folder",
      path=str(tmp_path / "data"),
      prepared=str(tmp_path / "prepared"),
      loader="resident",
    )
    # Padded to the eight devices; the padding counts nowhere.
    run.config.eval.batch_size = 3

  def call(*options):
    return cli.main(["evaluate", "--workdir=w", *options])

  return call


# 18 x 28 valid pixels in each image. Three images are red and two are green;
# 126 of the red pixels are labelled green.
VALID = 5 * 18 * 28
RED, GREEN = 3 * 18 * 28 - 126, 2 * 18 * 28 + 126
IOU = {"red": RED / (RED + 126), "green": (GREEN - 126) / GREEN}


def test_json_is_one_object(score, capsys):
  assert score("--json") == 0
  out = capsys.readouterr().out
  assert out.count("\n") == 1
  got = json.loads(out, parse_constant=pytest.fail)
  assert got["images"] == 5 and got["step"] == 7 and got["split"] == "val"
  assert got["canvas"] == [24, 32] and got["dataset"] == "folder"
  np.testing.assert_allclose(got["iou/red"], IOU["red"])
  np.testing.assert_allclose(got["iou/green"], IOU["green"])
  np.testing.assert_allclose(got["miou"], np.mean(list(IOU.values())))
  np.testing.assert_allclose(got["pixel_accuracy"], 1 - 126 / VALID)
  assert got["iou/dark"] is None
  assert np.sum(got["confusion"]) == VALID
  assert got["confusion"][2][1] == 126


def test_table_says_how_it_was_computed(score, capsys):
  fields = ("mode=sliding", "stride=0.5", "scales=0.5,1", "absent=zero", "flip")
  assert score(*(f"--config.eval.{field}" for field in fields)) == 0
  out = capsys.readouterr().out
  for words in (
    "step 7, on folder/val: 5 images",
    "every pixel at 24x32",
    "sliding 64x64",
    "scales 0.5, 1",
    "with mirror image",
    "counts 0",
    f"{100 * np.sum(list(IOU.values())) / 4:.2f}",
  ):
    assert words in out, words


def test_a_crf_is_scored_and_reported(score, capsys):
  """Potts energies move every pixel of a flat image to the same label."""
  crf = "pydensecrf,iterations=1,filter=exact"
  assert score("--json", f"--config.eval.crf={crf}") == 0
  got = json.loads(capsys.readouterr().out)
  assert got["crf"] == crf and "iterations=1" in got["inference"]
  np.testing.assert_allclose(got["iou/red"], IOU["red"])


def test_another_split_and_a_moved_folder(score, capsys, tmp_path):
  (tmp_path / "data").rename(tmp_path / "moved")
  assert (
    score(
      "--json",
      "--split=train",
      f"--config.data.path={tmp_path / 'moved'}",
      "--config.eval.batch_size=16",
    )
    == 0
  )
  got = json.loads(capsys.readouterr().out)
  assert got["images"] == 2 and got["miou"] == 1.0


def test_another_folder_is_scored_whole_with_a_label_map(
  score, run, capsys, tmp_path
):
  """The folder `data` trained; masks of the other one number red as 7."""
  for kind in ("images", "masks"):
    (tmp_path / "mine" / kind).mkdir(parents=True)
    for i in (0, 2):
      with Image.open(tmp_path / "data" / kind / f"val/{i}.png") as image:
        array = np.array(image)
      if kind == "masks":
        array[array == 1] = 7
      Image.fromarray(array).save(tmp_path / "mine" / kind / f"{i}.png")
  other = f"--config.data.path={tmp_path / 'mine'}"
  with pytest.raises(SystemExit):
    score(other)
  line = capsys.readouterr().err
  assert "pass --config.data.label_map='{7: 255}'\n" in line
  run.config.data.path = str(tmp_path / "data")
  assert score(other, "--json", "--config.data.label_map={7: 1}") == 0
  got = json.loads(capsys.readouterr().out)
  assert (got["images"], got["split"]) == (2, "all")
  assert got["miou"] == 1.0


@pytest.mark.parametrize(
  "option, words",
  [
    ("--split=tset", ["no split 'tset'", "train", "choose with --split"]),
    ("--config.data.path=/nowhere/at/all", ["/nowhere/at/all"]),
    ("--config.eval.scales=0", ["eval.scales"]),
    ("--config.eval.crf=deeplab_v4", ["eval.crf 'deeplab_v4'", "did you mean"]),
    ("--config.eval.crf=iterations=-1", ["iterations=-1", "0 or more"]),
    ("--config.eval.batch_size=0", ["eval.batch_size=0"]),
    ("--config.eval.scale=1", ["no field 'scale'", "'scales'", "batch_size"]),
    ("--config.model.name=unet", ["fixed by the trained run", "eval.*"]),
    ("--config.augment.flip=True", ["fixed by the trained run"]),
    ("--config.data.loader=resident", ["has no effect on this command"]),
  ],
)
def test_bad_values_are_one_line_and_status_2(score, capsys, option, words):
  with pytest.raises(SystemExit) as exit_:
    score(option)
  assert exit_.value.code == 2
  err = capsys.readouterr().err
  assert err.count("error:") == 1
  for word in words:
    assert word in err
