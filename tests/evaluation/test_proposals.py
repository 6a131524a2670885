"""Inference over boxes: resizing, maxima, and refused boxes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.errors import UserError
from jaxseg.evaluation.proposals import (
  check_boxes,
  grid_boxes,
  score_proposals,
)
from jaxseg.layers.resize import resize_bilinear


class Echo(nn.Module):
  """A network whose logits are the image itself."""

  @nn.compact
  def __call__(self, image, *, train):
    del train
    return {"logits": image}


def _image(size=(30, 40), seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.standard_normal((*size, 3)), jnp.float32)


def test_a_box_of_the_whole_image_resizes_there_and_back():
  image = _image()
  out = score_proposals(
    Echo(), {}, image, np.float32([[0, 0, 30, 40]]), side=24
  )
  there = resize_bilinear(image[None], (24, 24), align_corners=False)
  back = resize_bilinear(there, (30, 40), align_corners=False)[0]
  np.testing.assert_allclose(out, back, atol=1e-5)


def test_a_box_of_the_networks_size_is_not_resized():
  image = _image()
  boxes = np.float32([[3, 5, 19, 21]])
  out = np.asarray(score_proposals(Echo(), {}, image, boxes, side=16))
  np.testing.assert_allclose(out[3:19, 5:21], image[3:19, 5:21], atol=1e-5)
  # Pixels that no box covers have zeros.
  covered = np.zeros((30, 40), bool)
  covered[3:19, 5:21] = True
  np.testing.assert_array_equal(out[~covered], 0)


def test_overlapping_boxes_give_the_maximum():
  """The last batch is padded, and all logits are negative."""
  image = _image() - 10
  boxes = np.float32([[0, 0, 20, 30], [4, 2, 28, 26], [5.5, 8.25, 30, 40]])
  run = functools.partial(
    score_proposals, Echo(), {}, image, side=20, at_once=2
  )
  out = run(boxes)
  single = [np.asarray(run(box[None])) for box in boxes]
  single = [np.where(s == 0, -np.inf, s) for s in single]
  expected = np.max(single, axis=0)
  np.testing.assert_allclose(
    out, np.where(np.isneginf(expected), 0, expected), atol=1e-5
  )


def test_jit_with_boxes_as_an_argument_and_a_network():
  model = models.create("segnet_basic", num_classes=4, features=4, stages=1)
  image = _image((40, 50))
  variables = jax.jit(functools.partial(model.init, train=False))(
    jax.random.key(0), image[None]
  )
  run = jax.jit(
    lambda boxes: score_proposals(model, variables, image, boxes, side=32)
  )
  boxes = grid_boxes((40, 50), (24, 24))
  out = run(boxes)
  assert out.shape == (40, 50, 4)
  assert np.isfinite(out).all() and np.abs(out).min(axis=(0, 1)).max() > 0
  # Other boxes, the same compiled function.
  run(boxes[::-1])
  assert run._cache_size() == 1


def test_a_grid_covers_the_image():
  boxes = grid_boxes((50, 70), (24, 32))
  covered = np.zeros((50, 70), bool)
  for top, left, bottom, right in boxes.astype(int):
    assert (bottom - top, right - left) == (24, 32)
    covered[top:bottom, left:right] = True
  assert covered.all()
  # Rows at 0, 12, 24, 26; columns at 0, 16, 32, 38.
  assert len(boxes) == 4 * 4
  np.testing.assert_array_equal(
    grid_boxes((20, 30), (224, 224)), [[0, 0, 20, 30]]
  )


@pytest.mark.parametrize(
  ("boxes", "words"),
  [
    ([[0, 0, 31, 40]], ["box 0", "31", "bottom <= 30"]),
    ([[0, 0, 30, 40], [-1, 0, 9, 9]], ["box 1", "-1", "clip"]),
    ([[5, 5, 5, 9]], ["box 0", "top < bottom"]),
    ([[0, 0, np.nan, 9]], ["box 0", "nan"]),
    ([], ["shape (0,)"]),
    ([[1, 2, 3]], ["shape (1, 3)", "top, left, bottom, right"]),
  ],
)
def test_boxes_outside_the_image_are_refused(boxes, words):
  with pytest.raises(UserError) as error:
    check_boxes(boxes, (30, 40))
  assert all(word in str(error.value) for word in words)
  assert "\n" not in str(error.value)
  if len(words) == 3:
    with pytest.raises(UserError, match=words[0]):
      score_proposals(Echo(), {}, _image(), np.float32(boxes))
