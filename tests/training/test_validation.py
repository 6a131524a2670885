"""Validation reads the split once and draws the images that it scored."""

from unittest import mock

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from jaxseg import data, sharding
from jaxseg.config import with_data
from jaxseg.evaluation.inference import Inference
from jaxseg.tasks.segmentation import Segmentation
from jaxseg.training.reports import Reports
from jaxseg.training.setup import Experiment
from jaxseg.training.state import TrainState
from jaxseg.training.validation import Validation


class RedAmongBlack(nn.Module):
  """Predicts class 1 where an image is brighter than its own mean."""

  @nn.compact
  def __call__(self, image, *, train):
    x = image.mean(axis=-1, keepdims=True)
    x = x - x.mean(axis=(1, 2), keepdims=True)
    return {"logits": jnp.concatenate([-x, x, jnp.full_like(x, -9)], -1)}


@pytest.mark.parametrize("count", [0, 4])
def test_pictures_on_eight_devices(tiny_folder, capsys, count):
  """Four examples are drawn from two batches of one image for each device."""
  c = with_data("folder")
  c.data.update(path=str(tiny_folder), loader="resident", canvas=(24, 32))
  mesh = sharding.make_mesh()
  dataset = data.open(c, devices=mesh.size)
  task = Segmentation(dataset.class_names, dataset.mean, dataset.std)
  drawn, logged = [], []
  reports = mock.Mock(
    spec=Reports,
    scalars=lambda *args: logged.append(args),
    picture=lambda *args: drawn.append(args),
  )
  experiment = mock.Mock(
    spec=Experiment,
    dataset=dataset,
    model=RedAmongBlack(),
    task=task,
    inference=Inference(),
    options=mock.Mock(picture_count=count),
  )
  validate = Validation(experiment, mesh, reports)
  assert "5 images in 2 shapes" in capsys.readouterr().out
  state = mock.Mock(spec=TrainState, variables=lambda: {})
  scores = validate(state, 7)
  # The rows of 255 in the masks do not count.
  valid = 3 * (24 - 1) * 32 + 2 * (17 - 1) * 27
  assert scores["confusion"].sum() == valid
  assert logged[0][:2] == (7, "val")
  if not count:
    assert drawn == []
    return
  [(step, images, labels, predictions)] = drawn
  assert step == 7 and len(images) == 4
  for i, (image, label, ids) in enumerate(
    zip(images, labels, predictions, strict=True)
  ):
    name = f"{(0, 2, 4, 1)[i]:03d}.png"
    original, mask = (
      np.asarray(Image.open(tiny_folder / kind / "val" / name))
      for kind in ("images", "masks")
    )
    np.testing.assert_array_equal(label, mask)
    assert image.shape == original.shape and ids.shape == mask.shape
    if original.shape[:2] == (24, 32):
      np.testing.assert_array_equal(image, original)
      # Padding would change the mean that the prediction compares with.
      x = ((original / 255 - dataset.mean) / dataset.std).mean(axis=-1)
      np.testing.assert_array_equal(ids, x > x.mean())
