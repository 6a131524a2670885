"""The tables of the data sets equal their publications."""

import numpy as np
import pytest

from jaxseg.config import base
from jaxseg.data.datasets import DATASETS, voc_palette

# The colours of the PASCAL VOC development kit, classes 0..20.
VOC = (
  (0, 0, 0),
  (128, 0, 0),
  (0, 128, 0),
  (128, 128, 0),
  (0, 0, 128),
  (128, 0, 128),
  (0, 128, 128),
  (128, 128, 128),
  (64, 0, 0),
  (192, 0, 0),
  (64, 128, 0),
  (192, 128, 0),
  (64, 0, 128),
  (192, 0, 128),
  (64, 128, 128),
  (192, 128, 128),
  (0, 64, 0),
  (128, 64, 0),
  (0, 192, 0),
  (128, 192, 0),
  (0, 64, 128),
)


def test_voc_palette():
  assert voc_palette(21) == VOC
  assert voc_palette(256)[255] == (224, 224, 192)
  assert len(set(voc_palette(256))) == 256


@pytest.mark.parametrize("name", DATASETS)
def test_specs_are_consistent(name):
  spec = DATASETS[name]
  k = len(spec.class_names)
  assert len(spec.palette) == len(set(spec.palette)) == k
  assert len(set(spec.class_names)) == k
  assert len(spec.class_weights) in (0, k)
  assert not set(spec.void_ids) & set(range(k))
  assert k <= base().data.ignore_label


def test_camvid_weights_are_median_frequency():
  """The class of median frequency has weight 1, so the others enclose 1."""
  weights = np.sort(DATASETS["camvid"].class_weights)
  assert len(weights) == 11
  assert weights[4] < 1 < weights[6]
