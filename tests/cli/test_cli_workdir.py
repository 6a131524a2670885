"""evaluate and predict read a work directory and agree with each other."""

import json
from pathlib import Path
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from jaxseg import cli, sharding
from jaxseg.config import with_data
from jaxseg.errors import UserError
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.runs.run import load_run
from jaxseg.runs.workdir import save_config
from jaxseg.training import setup
from jaxseg.training.state import TrainState


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
  """Writes a work directory with two checkpoints; the first is the best."""
  c = with_data("folder")
  with c.unlocked():
    c.model = {
      "name": "pspnet",
      "backbone": {"name": "resnet18", "width": 4},
      "bins": (1, 2),
      "head_features": 8,
      "aux_features": 8,
    }
  c.data.update(path=str(tiny_folder), loader="resident", canvas=(24, 32))
  c.augment.crop = (16, 24)
  c.train.batch_size = c.eval.batch_size = 8
  mesh = sharding.make_mesh(jax.devices()[:1])
  experiment = setup.create(c, mesh)
  workdir = tmp_path_factory.mktemp("run")
  save_config(experiment.config, workdir)
  state = experiment.fresh_state(mesh)
  # A classifier of the opposite sign predicts other classes.
  classifier = state.params["head"]["classifier"]
  flipped = {**classifier, "kernel": -classifier["kernel"]}
  head = {**state.params["head"], "classifier": flipped}
  other = state.replace(
    step=state.step + 9, params={**state.params, "head": head}
  )
  checkpoints = Checkpoints(workdir, keep_last=1)
  checkpoints.save(state, {"miou": 0.5})
  checkpoints.save(other, {"miou": 0.1})
  checkpoints.close()
  return workdir


def evaluate(workdir, capsys, *options):
  assert cli.main(["evaluate", f"--workdir={workdir}", "--json", *options]) == 0
  return json.loads(capsys.readouterr().out)


def test_predicted_files_have_the_scores_of_evaluate(
  trained, tiny_folder, tmp_path, capsys
):
  scores = evaluate(trained, capsys)
  assert scores["step"] == 0 and scores["images"] == 5
  assert (
    cli.main(
      [
        "predict",
        f"--workdir={trained}",
        f"--output={tmp_path}",
        str(tiny_folder / "images" / "val"),
      ]
    )
    == 0
  )
  confusion = np.zeros((3, 3), int)
  for path in sorted((tiny_folder / "masks" / "val").iterdir()):
    truth, ids = (
      np.asarray(Image.open(p)) for p in (path, tmp_path / path.name)
    )
    keep = truth != 255
    np.add.at(confusion, (truth[keep], ids[keep]), 1)
  np.testing.assert_array_equal(scores["confusion"], confusion)
  np.testing.assert_allclose(
    scores["pixel_accuracy"], np.trace(confusion) / confusion.sum()
  )


def test_a_larger_canvas_changes_no_prediction(trained):
  """The fill colour of a canvas is no part of the scene."""
  image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
  found = []
  for canvas in ((24, 32), (48, 64)):
    run = load_run(trained)
    run.config.eval.canvas = canvas
    found.append(run.predict(image))
  assert len(np.unique(found[0])) > 1
  np.testing.assert_array_equal(*found)


def test_a_moved_run_and_its_other_checkpoint(trained, tmp_path, capsys):
  moved = shutil.copytree(trained, tmp_path / "elsewhere")
  last = evaluate(moved, capsys, "--checkpoint=last")
  assert last["step"] == 9
  with pytest.raises(SystemExit) as exit_:
    cli.main(["evaluate", f"--workdir={moved}", "--checkpoint=5"])
  assert exit_.value.code == 2
  assert "no checkpoint of step 5" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_replaced_by_another(
  trained, tmp_path, capsys, caplog
):
  damaged = Path(shutil.copytree(trained, tmp_path / "damaged"))
  (damaged / "checkpoints" / "0" / "default" / "_METADATA").unlink()
  assert load_run(damaged, "best").step == 9
  assert (
    "checkpoint 0 is damaged (default/_METADATA: missing); using step 9"
    in (capsys.readouterr().err)
  )
  with pytest.raises(UserError, match=r"_METADATA.*other steps: \[9\]"):
    load_run(damaged, 0)
  assert load_run(damaged, "last").step == 9
  (damaged / "checkpoints" / "9" / "default" / "_METADATA").unlink()
  with pytest.raises(UserError, match="no checkpoint is intact"):
    load_run(damaged, "last")
  assert not capsys.readouterr().err and not caplog.messages


def test_weights_that_are_not_finite_are_refused(trained, tmp_path):
  shutil.copy(trained / "config.json", tmp_path)
  tree = load_run(trained, 0).variables
  tree["params"]["head"]["classifier"]["kernel"] *= float("nan")
  state = TrainState(jnp.int32(5), **tree, opt_state=(), ema=None)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state)
  checkpoints.close()
  with pytest.raises(UserError, match="checkpoint 5: params/head/classifier/k"):
    load_run(tmp_path)
