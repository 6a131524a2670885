"""The membranes of ISBI 2012: layout, labels and the validation split."""

from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from jaxseg import data
from jaxseg.config import with_data
from jaxseg.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared/data/isbi_em"


def _config(path, loader="resident"):
  config = with_data("isbi_em")
  config.data.update(path=str(path), loader=loader)
  config.train.batch_size = config.eval.batch_size = 2
  return config


def _stack(root: Path, count: int) -> Path:
  """Writes sections of the grey value of their number, half of it membrane."""
  label = np.full((16, 16), 255, np.uint8)
  label[:, :8] = 0
  for kind in ("image", "label"):
    (root / "train" / kind).mkdir(parents=True)
  for i in range(count):
    image = np.full((16, 16), i, np.uint8)
    Image.fromarray(image).save(root / f"train/image/{i:02d}.png")
    Image.fromarray(label).save(root / f"train/label/{i:02d}.png")
  return root


def test_the_end_of_the_stack_is_held_out(tmp_path):
  config = _config(_stack(tmp_path, 10))
  config.data.canvas = (16, 16)
  dataset = data.open(config)
  assert dataset.class_names == ("membrane", "cell")
  assert dataset.splits["train"] == 8
  (batch,) = dataset.eval_batches("val")
  np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], [8, 9])
  np.testing.assert_array_equal(batch["label"][0, 0], [0] * 8 + [1] * 8)


def test_another_layout_is_refused(tmp_path):
  with pytest.raises(UserError, match="train/image"):
    data.open(_config(tmp_path))
  _stack(tmp_path, 1)
  with pytest.raises(UserError, match="two or more"):
    data.open(_config(tmp_path))


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no {SHARED}")
def test_the_real_stack():
  dataset = data.open(_config(SHARED))
  assert dataset.splits["train"] == 24
  assert dataset.splits["val"] == 6
  pixels = sum(dataset.class_pixels(s) for s in ("train", "val"))
  assert pixels.sum() == 30 * 512 * 512
  # The README of the data says 22 % membrane.
  assert pixels[0] / pixels.sum() == pytest.approx(0.22, abs=0.005)
  images = np.concatenate(
    [
      np.asarray(Image.open(SHARED / f"train/image/{i:02d}.png"))
      for i in range(24)
    ]
  )
  assert images.mean() / 255 == pytest.approx(dataset.mean[0], abs=2e-3)
  assert images.std() / 255 == pytest.approx(dataset.std[0], abs=2e-3)
