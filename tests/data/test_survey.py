"""Canvas, crop and bits are chosen from the training images, and reported."""

import numpy as np
import pytest

from jaxseg import data
from jaxseg.data import survey


@pytest.mark.parametrize(
  ("sizes", "largest", "canvas"),
  [
    ([(375, 500)], 512, (384, 512)),
    ([(375, 500), (500, 375)], 512, (512, 512)),
    ([(3000, 4000)], 512, (384, 512)),
    ([(20, 24)], 512, (32, 32)),
    ([(10, 5000), (300, 300)], 512, (320, 512)),
    ([(375, 500)], 224, (192, 224)),
    ([(3000, 4000)], 0, (3008, 4000)),
  ],
)
def test_the_canvas_holds_all_images(sizes, largest, canvas):
  assert survey.choose_canvas(sizes, largest) == canvas


def test_the_crop_is_at_most_as_large_as_allowed():
  assert survey.choose_crop((384, 512), 384) == (384, 384)
  assert survey.choose_crop((384, 512), 400) == (384, 400)
  assert survey.choose_crop((384, 512), 0) == (384, 512)


def test_bits_hold_the_largest_value():
  peaks = {0: 8, 254: 8, 255: 8, 256: 10, 4095: 12, 4096: 14, 65535: 16}
  assert {peak: survey.choose_bits(peak) for peak in peaks} == peaks
  assert survey.choose_bits(None) == 0


def test_a_folder_chooses_and_says_so(folder, configure, capsys):
  root = folder(sizes=((20, 70), (40, 24)))
  config = configure(root, canvas=(), largest_crop=48)
  dataset = data.open(config)
  assert (dataset.canvas, dataset.crop) == ((64, 96), (48, 48))
  batch = next(dataset.train_batches())
  assert batch["image"].shape == (4, 64, 96, 3)
  err = capsys.readouterr().err
  assert err.startswith(
    "note: 5 training images of 20x24 to 40x70: chose data.canvas=64x96,"
    " augment.crop=48x48\n"
  )
  # What is given is not chosen, and nothing is said about it.
  config.data.update(canvas=dataset.canvas, class_names=("a", "b", "c"))
  config.augment.crop = dataset.crop
  data.open(config)
  assert not capsys.readouterr().err


@pytest.mark.parametrize(("peak", "bits"), [(4000, 12), (254, 8)])
def test_16_bit_images_are_scaled_by_the_training_split(
  folder, configure, write, capsys, peak, bits
):
  root = folder(sizes=((20, 24),))
  for path in root.glob("images/*/*.png"):
    ramp = np.linspace(0, peak, 480).astype(np.uint16).reshape(20, 24)
    # A darker validation image is not brightened, a brighter one is clipped.
    factor = {"n05": 0.5, "n06": 2}.get(path.stem, 1)
    write(path, (ramp * factor).astype(np.uint16))
  dataset = data.open(configure(root, canvas=(20, 24)))
  assert dataset.bits == bits
  assert f"data.bits={bits}" in capsys.readouterr().err
  white = 2**bits - 1
  train = np.asarray(next(dataset.train_batches())["image"])
  assert len(np.unique(train)) > 200
  assert train.max() == round(255 * peak / white)
  dark, bright = np.asarray(next(iter(dataset.eval_batches()))["image"])[:2]
  assert dark.max() == round(255 * peak // 2 / white)
  assert bright.max() == 255
