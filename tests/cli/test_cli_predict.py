"""predict: the files it writes, for which images, under which names."""

import dataclasses
import json
from pathlib import Path
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from jaxseg import cli
from jaxseg.cli import predict
from jaxseg.errors import UserError
from jaxseg.evaluation import inference


def thirds(height, width):
  """Returns an image of red, green and blue columns, and its class ids."""
  ids = np.repeat(np.arange(1, 4), -(-width // 3))[None, :width]
  ids = np.broadcast_to(ids, (height, width))
  image = np.zeros((height, width, 3), np.uint8)
  for k in range(3):
    image[ids == k + 1, k] = 200
  return image, ids


def write(path, size=(20, 30)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(thirds(*size)[0]).save(path)
  return path


def read(path):
  with Image.open(path) as image:
    return np.asarray(image)


@pytest.fixture
def segment(run, monkeypatch, tmp_path):
  """Runs the command with the linear network as the trained run."""
  # Each call gets a run of its own, which compiles its own network.
  monkeypatch.setattr(
    predict, "load_run", lambda workdir, which: dataclasses.replace(run)
  )
  out = tmp_path / "out"

  def call(*inputs, options=()):
    argv = ["predict", "--workdir=w", f"--output={out}", *options]
    return cli.main([*argv, *map(str, inputs)]), out

  return call


@pytest.mark.parametrize(
  "size", [(24, 32), (20, 30), (5, 9), (60, 90), (24, 200), (300, 30), (1, 1)]
)
def test_any_size_comes_back_at_its_own_size(segment, tmp_path, size):
  path = write(tmp_path / "in" / "a.png", size)
  status, out = segment(path)
  assert status == 0
  ids = read(out / "a.png")
  expected = thirds(*size)[1]
  assert ids.shape == size
  # Predictions of shrunk images may differ only beside the two edges.
  shrunk = max(size[0] / 24, size[1] / 32, 1)
  reach = int(np.ceil(2 * shrunk)) if shrunk > 1 else 0
  far = np.ones(size, bool)
  for edge in np.flatnonzero(np.diff(expected[0])):
    far[:, max(edge - reach + 1, 0) : edge + reach + 1] = False
  np.testing.assert_array_equal(ids[far], expected[far])


def test_ids_carry_the_palette_and_the_overlay_its_colours(segment, tmp_path):
  image, ids = thirds(20, 30)
  _, out = segment(write(tmp_path / "in" / "a.jpg.png"))
  with Image.open(out / "a.jpg.png") as written:
    assert written.mode == "P"
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 200, 0), (0, 0, 255)])
    np.testing.assert_array_equal(
      np.asarray(written.convert("RGB")), colours[ids]
    )
  overlay = read(out / "a.jpg_overlay.png")
  np.testing.assert_array_equal(
    overlay[10, 5], np.rint((image[10, 5] + colours[1]) / 2)
  )


def test_a_crf_clears_away_a_speck(segment, tmp_path):
  image, ids = thirds(24, 32)
  image[10:12, 4:6] = (0, 60, 0)  # weakly green, inside the red
  path = tmp_path / "in" / "a.png"
  path.parent.mkdir()
  Image.fromarray(image).save(path)
  _, out = segment(path)
  assert (read(out / "a.png")[10:12, 4:6] != 1).all()
  # Without the bilateral kernel, colours have no effect.
  crf = "iterations=5,bilateral_weight=0,filter=exact"
  _, out = segment(path, options=[f"--config.eval.crf={crf}"])
  np.testing.assert_array_equal(read(out / "a.png"), ids)


def test_exif_orientation_is_applied(segment, tmp_path):
  """A photo of a turned camera is 30 pixels wide in the file, 20 upright."""
  image, _ = thirds(20, 30)
  exif = Image.Exif()
  exif[0x0112] = 6  # Rotate clockwise for an upright image.
  path = tmp_path / "in" / "turned.png"
  path.parent.mkdir()
  Image.fromarray(image).save(path, exif=exif)
  _, out = segment(path)
  ids = read(out / "turned.png")
  assert ids.shape == (30, 20)
  np.testing.assert_array_equal(ids[[0, 15, 29], 10], [1, 2, 3])


def test_grey_transparent_and_palette_images_are_read(segment, tmp_path):
  folder = tmp_path / "in"
  folder.mkdir()
  rgb = Image.fromarray(thirds(20, 30)[0])
  for mode in ("L", "RGBA", "P", "LA", "1"):
    rgb.convert(mode).save(folder / f"{mode}.png")
  status, out = segment(folder)
  assert status == 0
  assert len(list(out.glob("*_overlay.png"))) == 5
  np.testing.assert_array_equal(read(out / "RGBA.png"), thirds(20, 30)[1])


def test_16_bit_images_are_scaled_as_in_training(
  segment, run, tmp_path, capsys
):
  """White of 12 bits is bright; without known bits the image is refused."""
  white = np.full((20, 30), 4095, np.uint16)
  (tmp_path / "in").mkdir()
  Image.fromarray(white).save(tmp_path / "in/white.png")
  status, out = segment(tmp_path / "in")
  assert status == 2
  assert "white.png has 16 bits" in capsys.readouterr().err
  status, out = segment(tmp_path / "in", "--config.data.bits=12")
  assert status == 0
  np.testing.assert_array_equal(read(out / "white.png"), 1)
  rgb = np.repeat(white[..., None], 3, axis=2)
  np.testing.assert_array_equal(run.predict(rgb), 1)


def test_folders_are_searched_and_names_are_distinct(segment, tmp_path):
  for name in ("a/x.png", "b/x.png", "b/y.png", "b/y.jpg", "z.png", "no.txt"):
    path = tmp_path / "in" / name
    if path.suffix == ".txt":
      path.write_text("not an image")
    else:
      write(path)
  status, out = segment(tmp_path / "in")
  assert status == 0
  written = {p.stem for p in out.iterdir() if "overlay" not in p.stem}
  assert written == {"a_x", "b_x", "y_png", "y_jpg", "z", "legend"}


def test_the_network_is_compiled_once_for_each_shape(
  segment, run, monkeypatch, tmp_path, capsys
):
  folder = tmp_path / "in"
  for i, size in enumerate(((24, 32), (48, 64), (12, 32), (240, 320))):
    write(folder / f"{i}.png", size)
  (folder / "4.png").write_bytes(b"")
  compiled = []
  make = inference.make_predict_logits
  monkeypatch.setattr(
    inference,
    "make_predict_logits",
    lambda *args: compiled.append(args) or make(*args),
  )
  segment(folder)
  assert len(compiled) == 2
  assert "5 images in 2 shapes" in capsys.readouterr().out


def test_one_image_named_twice_is_segmented_once(segment, tmp_path, capsys):
  path = write(tmp_path / "in" / "a.png")
  segment(path, tmp_path / "in")
  assert "1 of 1 images" in capsys.readouterr().out


def test_bad_images_are_reported_at_the_end(segment, tmp_path, capsys):
  folder = tmp_path / "in"
  for name in ("a.png", "b.png", "c.png", "d.png"):
    write(folder / name)
  (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:60])
  (folder / "c.png").write_bytes(b"")
  status, out = segment(folder)
  assert status == 2
  captured = capsys.readouterr()
  lines = captured.err.strip().splitlines()
  assert len(lines) == 2
  assert "b.png" in lines[0] and "c.png" in lines[1]
  assert "2 of 4 images" in captured.out
  assert {p.name for p in out.iterdir()} == {
    "a.png",
    "a_overlay.png",
    "d.png",
    "d_overlay.png",
    "legend.png",
  }


def test_json_counts_the_images(segment, tmp_path, capsys):
  folder = tmp_path / "in"
  for name in ("a.png", "b.png", "c.png"):
    write(folder / name)
  segment(folder / "c.png")
  (folder / "b.png").write_bytes(b"")
  capsys.readouterr()
  status, out = segment(folder, options=["--skip-existing", "--json"])
  assert status == 2
  captured = capsys.readouterr()
  assert captured.out.count("\n") == 1 and "b.png" in captured.err
  counts = {"images": 3, "written": 1, "skipped": 1, "failed": 1}
  assert json.loads(captured.out) == {"output": str(out), **counts}


@pytest.mark.parametrize(
  "field, reason",
  [
    ("model.name=unet", "fixed by the trained run"),
    ("eval.batch_size=1", "has no effect on this command"),
  ],
)
def test_fields_that_predict_does_not_take(
  segment, tmp_path, capsys, field, reason
):
  with pytest.raises(SystemExit) as exit_:
    segment(write(tmp_path / "in" / "a.png"), options=[f"--config.{field}"])
  assert exit_.value.code == 2
  assert reason in capsys.readouterr().err


def test_existing_results_are_skipped_when_asked(segment, tmp_path, capsys):
  folder = tmp_path / "in"
  write(folder / "a.png")
  write(folder / "b.png")
  _, out = segment(folder)
  before = (out / "a.png").stat().st_mtime_ns
  (out / "b_overlay.png").unlink()
  status, _ = segment(folder, options=["--skip-existing"])
  assert status == 0 and (out / "b_overlay.png").exists()
  assert (out / "a.png").stat().st_mtime_ns == before
  assert "1 of 2 images" in capsys.readouterr().out


def test_results_inside_the_input_folder_are_not_segmented(
  run, monkeypatch, tmp_path
):
  monkeypatch.setattr(predict, "load_run", lambda workdir, which: run)
  write(tmp_path / "a.png")
  for _ in range(2):
    argv = ["predict", "--workdir=w", f"--output={tmp_path / 'out'}"]
    assert cli.main([*argv, str(tmp_path)]) == 0
  assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize(
  "names, output, words",
  [
    (["a.png"], "in", ["in is searched for images", "in/masks"]),
    (["b.png", "b_overlay.png"], "out", ["b_overlay.png", "overwrite"]),
    ([], "out", ["has no image files"]),
  ],
)
def test_nothing_is_ever_overwritten(tmp_path, names, output, words):
  (tmp_path / "in").mkdir()
  for name in names:
    write(tmp_path / "in" / name)
  with pytest.raises(UserError) as error:
    predict.plan([tmp_path / "in"], tmp_path / output)
  for word in words:
    assert word in str(error.value)


def test_a_result_never_replaces_its_image(tmp_path):
  path = write(tmp_path / "in" / "a.png")
  with pytest.raises(UserError, match="a.png.* would overwrite .*--output"):
    predict.plan([path], tmp_path / "in")


def test_the_legend_replaces_no_result(tmp_path):
  for names, expected in (
    (["a.png"], "legend.png"),
    (["legend.jpg"], "class_legend.png"),
  ):
    jobs = predict.plan([write(tmp_path / n) for n in names], tmp_path / "out")
    assert predict.legend_path(tmp_path, jobs) == tmp_path / expected


def test_an_output_that_is_a_file_is_refused_first(tmp_path, capsys):
  path = write(tmp_path / "a.png")
  for output in (path, path / "x"):
    with pytest.raises(SystemExit) as exit_:
      cli.main(["predict", "--workdir=w", f"--output={output}", str(path)])
    assert exit_.value.code == 2
    assert f"{path} is a file; expected a folder" in capsys.readouterr().err


def test_links_that_lead_nowhere_are_reported(segment, tmp_path, capsys):
  folder = tmp_path / "in"
  write(folder / "a.png")
  (folder / "b.png").symlink_to(folder / "gone.png")
  (folder / "c.png").symlink_to(folder / "c.png")
  status, _ = segment(folder)
  assert status == 2
  captured = capsys.readouterr()
  assert "1 of 3 images" in captured.out
  lines = captured.err.strip().splitlines()
  assert "b.png" in lines[0] and "c.png" in lines[1] and len(lines) == 2


def test_missing_input_is_named(tmp_path):
  with pytest.raises(UserError, match="gone.png does not exist"):
    predict.plan([tmp_path / "gone.png"], tmp_path / "out")


@pytest.mark.parametrize(
  "paths, names",
  [
    (["/p/a.png", "/p/b.png"], ["a", "b"]),
    (["/p/q/a.png", "/p/r/a.png"], ["q_a", "r_a"]),
    (["/p/q/s/a.png", "/p/r/s/a.png"], ["q_s_a", "r_s_a"]),
    (["/p/a.png", "/p/a.jpg"], ["a_png", "a_jpg"]),
    (["/p/a.png", "/a.png", "/p/b.png"], ["p_a", "a", "b"]),
  ],
)
def test_names_are_short_and_distinct(paths, names):
  assert predict.unique_names([Path(p) for p in paths]) == names


def test_a_classifier_has_no_masks_to_write(segment, run, tmp_path, capsys):
  run.config.task = "classification"
  with pytest.raises(SystemExit) as exit_:
    segment(write(tmp_path / "in" / "a.png"))
  assert exit_.value.code == 2
  assert "classifies whole images" in capsys.readouterr().err


def test_prediction_needs_no_tensorflow():
  code = (
    "import sys\n"
    "import jaxseg.cli.predict\n"
    "assert 'tensorflow' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
