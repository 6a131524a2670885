"""CamVid and the Weizmann horses have their published counts and shares."""

from pathlib import Path

import numpy as np
import pytest

from jaxseg import data

SHARED = Path(__file__).parents[2].parent / "shared/data"
pytestmark = [
  pytest.mark.data,
  pytest.mark.skipif(not SHARED.is_dir(), reason=f"no {SHARED}"),
]

# Shares of the classes in all splits, from the README of the data.
CAMVID_SHARES = (
  0.158,
  0.241,
  0.010,
  0.293,
  0.067,
  0.112,
  0.011,
  0.014,
  0.046,
  0.006,
  0.005,
)
CAMVID_SIZES = {"train": 367, "val": 101, "test": 233}


def test_camvid(configure):
  config = configure(SHARED / "camvid", "camvid", "tfdata")
  dataset = data.open(config)
  for split, count in CAMVID_SIZES.items():
    assert dataset.splits[split] == count
  pixels = sum(dataset.class_pixels(split) for split in CAMVID_SIZES)
  total = sum(CAMVID_SIZES.values()) * 360 * 480
  np.testing.assert_allclose(pixels / total, CAMVID_SHARES, atol=6e-4)
  assert 1 - pixels.sum() / total == pytest.approx(0.036, abs=6e-4)
  batches = list(dataset.eval_batches("val"))
  assert len(batches) == 26
  seen = sum((batch["label"] != 255).sum() for batch in batches)
  assert seen == dataset.class_pixels("val").sum()


@pytest.mark.parametrize("loader", ["tfdata", "resident"])
def test_horses(configure, loader, capsys):
  """The splits are train and test; images have 211x170 to 1280x960 pixels."""
  config = configure(SHARED / "weizmann_horse", loader=loader)
  config.data.canvas = (96, 96)
  dataset = data.open(config)
  assert "evaluating on 'test'" in capsys.readouterr().err
  assert dataset.eval_split == "test"
  assert dataset.class_names == ("class_0", "class_1")
  assert dataset.splits["train"] == 278
  assert dataset.splits["test"] == 49
  batch = next(dataset.train_batches())
  assert set(np.unique(batch["label"])) <= {0, 1, 255}
  assert np.asarray(batch["size"]).max() == 96
