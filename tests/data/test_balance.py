"""Median-frequency balancing: by hand, of a folder, and of CamVid."""

from pathlib import Path

import numpy as np
import pytest

from jaxseg import data
from jaxseg.data.audit import IdCount, median_frequency
from jaxseg.data.datasets import DATASETS

CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"


def test_by_hand():
  """Classes cover 1/2, 1/4 and 1/10 of the images that contain them."""
  counts = {
    0: IdCount(pixels=100, masks=2, area=200, first="a"),
    1: IdCount(pixels=50, masks=2, area=200, first="a"),
    2: IdCount(pixels=10, masks=1, area=100, first="b"),
    255: IdCount(pixels=40, masks=1, area=100, first="b"),
  }
  # The fourth class never occurs.
  assert median_frequency(counts, 4) == pytest.approx((0.5, 1.0, 2.5, 1.0))
  assert median_frequency({}, 2) == (1.0, 1.0)


@pytest.mark.parametrize("loader", ["tfdata", "resident"])
def test_from_the_masks_of_the_training_split(folder, configure, write, loader):
  root = folder({"train": 4, "val": 2})
  # One mask has a single class; another has two and an ignored pixel.
  mask = np.zeros((20, 24), np.uint8)
  write(root / "masks/train/n00.png", mask)
  mask[:10], mask[19, 23] = 2, 255
  write(root / "masks/train/n01.png", mask)
  dataset = data.open(configure(root, loader=loader))
  source = data.sources.find("folder", str(root))
  masks = [source.ids("train", i) for i in range(4)]
  frequency = []
  for k in range(3):
    holding = [mask for mask in masks if (mask == k).any()]
    pixels = sum((mask == k).sum() for mask in holding)
    frequency.append(pixels / sum(mask.size for mask in holding))
  weights = np.median(frequency) / frequency
  np.testing.assert_allclose(dataset.median_frequency(), weights, rtol=1e-12)


@pytest.mark.data
def test_weights_of_camvid_are_near_the_published_ones(configure):
  """The published ones count other masks, which differ most in the signs."""
  if not CAMVID.exists():
    pytest.skip(f"no {CAMVID}")
  config = configure(CAMVID, name="camvid", canvas=(360, 480))
  config.data.loader = "resident"
  dataset = data.open(config)
  published = DATASETS["camvid"].class_weights
  ratio = np.divide(dataset.median_frequency(), published)
  ratio = np.delete(ratio, dataset.class_names.index("sign_symbol"))
  assert np.all((ratio > 0.9) & (ratio < 1.25))
