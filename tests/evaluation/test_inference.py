"""Networks applied whole, in windows, at several scales and mirrored."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg.errors import UserError
from jaxseg.evaluation import inference
from jaxseg.evaluation.inference import (
  Inference,
  ids_at_size,
  make_predict_logits,
  on_canvas,
  predict_logits,
  window_starts,
)
from jaxseg.layers.resize import resize_bilinear
from jaxseg.tasks.segmentation import Segmentation

CLASSES = 3


class Convolution(nn.Module):
  """A k x k convolution, which reads k // 2 pixels on each side."""

  kernel_size: int = 3

  @nn.compact
  def __call__(self, image, *, train):
    k = (self.kernel_size, self.kernel_size)
    init = nn.initializers.normal(1.0)
    x = nn.Conv(CLASSES, k, kernel_init=init, name="conv")(image)
    return {"logits": x, "aux_logits": -x}


def setup(kernel_size=3, size=(12, 17), n=2):
  model = Convolution(kernel_size)
  image = jax.random.normal(jax.random.key(1), (n, *size, 3))
  return model, model.init(jax.random.key(0), image, train=False), image


def run(model, variables, image, **fields):
  function = functools.partial(
    predict_logits, model, inference=Inference(**fields)
  )
  return np.asarray(jax.jit(function)(variables, image))


def softmax(x):
  x = np.exp(x - x.max(axis=-1, keepdims=True))
  return x / x.sum(axis=-1, keepdims=True)


def whole(model, variables, image):
  return np.asarray(_apply(model, variables, image))


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, variables, image):
  return model.apply(variables, image, train=False)["logits"]


def test_whole_is_the_network():
  case = setup()
  np.testing.assert_allclose(run(*case), whole(*case), atol=1e-6)


@pytest.mark.parametrize("window", [(12, 17), (20, 17), (16, 32)])
def test_one_window_over_the_image_is_the_whole_image(window):
  model, variables, image = setup()
  np.testing.assert_allclose(
    run(model, variables, image, mode="sliding", window=window),
    whole(model, variables, image),
    atol=1e-6,
  )


def test_windows_do_not_change_a_pixelwise_network():
  """Windows make no difference to a 1x1 convolution."""
  model, variables, image = setup(kernel_size=1)
  for window, stride in (((5, 6), 0.3), ((12, 4), 1.0), ((3, 30), 2 / 3)):
    got = run(
      model, variables, image, mode="sliding", window=window, stride=stride
    )
    np.testing.assert_allclose(
      softmax(got), softmax(whole(model, variables, image)), atol=1e-6
    )


@pytest.mark.parametrize("stride", [0.5, 2 / 3])
def test_windows_average_probabilities(stride):
  """The result equals a loop over windows in NumPy."""
  model, variables, image = setup(size=(13, 18))
  window = (6, 8)
  total, seen = np.zeros((2, 13, 18, CLASSES)), np.zeros((13, 18, 1))
  step = [math.ceil(w * stride) for w in window]
  for top in range(0, 13 - window[0] + step[0], step[0]):
    for left in range(0, 18 - window[1] + step[1], step[1]):
      y, x = min(top, 13 - window[0]), min(left, 18 - window[1])
      part = np.s_[y : y + window[0], x : x + window[1]]
      crop = jnp.asarray(np.asarray(image)[:, *part])
      total[:, *part] += softmax(whole(model, variables, crop))
      seen[part] += 1
  got = run(
    model, variables, image, mode="sliding", window=window, stride=stride
  )
  np.testing.assert_allclose(softmax(got), total / seen, atol=1e-5)


@pytest.mark.parametrize("size", [5, 8, 9, 15, 16, 31])
@pytest.mark.parametrize("stride", [0.1, 2 / 3, 1.0])
def test_windows_cover_every_pixel_and_end_at_the_end(size, stride):
  window = 8
  starts = window_starts(size, window, stride)
  assert starts[0] == 0 and starts == sorted(set(starts))
  assert starts[-1] == max(size - window, 0)
  assert np.diff(starts).max(initial=0) <= window


def test_windows_step_as_in_semseg():
  """The step is ceil(473 * 2 / 3) = 316; exact products are not rounded up."""
  assert window_starts(1000, 473, 2 / 3) == [0, 316, 527]
  assert window_starts(8, 3, 2 / 3) == [0, 2, 4, 5]
  assert window_starts(110, 100, 0.07) == [0, 7, 10]
  assert window_starts(5, 2, 1e-9) == [0, 1, 2, 3]


def test_a_single_scale_resizes_image_and_logits():
  """With a single scale, logits are resized by torch's bilinear rule."""
  model, variables, image = setup(kernel_size=1, size=(12, 16))
  got = run(model, variables, image, scales=(0.5,))
  # Half-pixel bilinear at 1/2 is the mean of 2 x 2 pixels.
  half = np.asarray(image).reshape(2, 6, 2, 8, 2, 3).mean(axis=(2, 4))
  half = whole(model, variables, jnp.asarray(half))
  # At 2 it weights neighbours 3:1 and repeats the border.
  up = half
  for axis in (1, 2):
    n = up.shape[axis]
    near = np.repeat(up, 2, axis=axis)
    index = np.stack([np.arange(n) - 1, np.arange(n) + 1], 1).ravel()
    far = np.take(up, np.clip(index, 0, n - 1), axis=axis)
    up = 0.75 * near + 0.25 * far
  np.testing.assert_allclose(got, up, atol=1e-5)


def test_scales_and_mirror_average_probabilities():
  model, variables, image = setup(size=(12, 16))
  views = []
  for scale in (0.5, 1.0, 1.75):
    one = run(model, variables, image, scales=(scale,))
    mirrored = run(model, variables, image[:, :, ::-1], scales=(scale,))
    views += [softmax(one), softmax(mirrored)[:, :, ::-1]]
  got = run(model, variables, image, scales=(0.5, 1.0, 1.75), flip=True)
  assert got.dtype == np.float32 and got.shape == (2, 12, 16, CLASSES)
  np.testing.assert_allclose(softmax(got), np.mean(views, axis=0), atol=1e-6)


def test_flip_makes_the_prediction_symmetric():
  model, variables, image = setup(size=(12, 16))
  # Windows of 8 every 4 columns: the mirrored grid is the same.
  how = {"mode": "sliding", "window": (12, 8), "stride": 0.5, "flip": True}
  got = run(model, variables, image, **how)
  mirrored = run(model, variables, image[:, :, ::-1], **how)
  np.testing.assert_allclose(
    softmax(got), softmax(mirrored)[:, :, ::-1], atol=1e-6
  )


def test_a_classifier_is_not_applied_in_windows():
  class Classifier(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
      return {"logits": image.mean(axis=(1, 2))}

  image = jnp.ones((2, 12, 16, 3))
  how = {"scales": (1.0, 0.5), "flip": True}
  got = run(Classifier(), {}, image, **how)
  np.testing.assert_allclose(softmax(got), np.full((2, 3), 1 / 3), atol=1e-6)
  with pytest.raises(UserError, match="use eval.mode='whole'"):
    run(Classifier(), {}, image, mode="sliding", window=(6, 6), **how)
  with pytest.raises(UserError, match="use eval.mode='whole'"):
    run(Classifier(), {}, image, mode="sliding", window=(12, 16))


def test_a_scale_that_no_memory_holds_is_refused():
  model, variables, image = setup(size=(12, 16))
  with pytest.raises(UserError, match="1e\\+06 enlarges images of 12x16"):
    run(model, variables, image, scales=(0.5, 1e6))


def test_logits_of_an_impossible_class_are_finite():
  """A probability that underflows to 0 has a finite logarithm."""
  model, variables, image = setup()
  variables = jax.tree.map(lambda x: 1e4 * x, variables)
  got = run(model, variables, image, flip=True)
  assert np.isfinite(got).all()


def test_prediction_normalises_bytes():
  task = Segmentation(tuple("abc"), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
  model, variables, _ = setup()
  image = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), np.uint8)
  x = (image / 255 - np.array(task.mean)) / np.array(task.std)
  expected = whole(model, variables, jnp.asarray(x, jnp.float32))
  applied = (model, task, Inference())
  got = make_predict_logits(*applied)(variables, jnp.asarray(image))
  np.testing.assert_allclose(got, expected, atol=1e-4)


def test_logits_are_resized_to_the_area_of_each_label():
  """Each area equals a bilinear resize; areas of the input's size are exact."""
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(4, 9, 8, 3)), jnp.float32)
  sizes = np.array([(9, 8), (7, 8), (12, 11), (0, 0)], np.int32)
  place = jax.jit(on_canvas, static_argnames="canvas")
  got = place(logits, sizes, canvas=(12, 11))
  assert got.shape == (4, 12, 11, 3) and np.isfinite(got).all()
  for i, (h, w) in enumerate(sizes[:3].tolist()):
    expected = resize_bilinear(logits[i : i + 1], (h, w), align_corners=False)
    np.testing.assert_allclose(got[i, :h, :w], expected[0], atol=1e-5)
  np.testing.assert_array_equal(got[0, :9, :8], logits[0])
  plain = place(logits, sizes[[0, 0, 3, 0]], canvas=(12, 11))
  np.testing.assert_array_equal(plain[:, :9, :8], logits)
  np.testing.assert_array_equal(plain[:, 9:], 0)
  classes = jnp.ones((4, 3))
  assert on_canvas(classes, jnp.asarray(sizes), (12, 11)) is classes


@pytest.mark.parametrize("size", [(9, 7), (23, 7), (4, 30), (40, 50), (1, 1)])
@pytest.mark.parametrize("stripe", [1, 2**20])
def test_ids_at_another_size_are_those_of_resized_logits(
  size, stripe, monkeypatch
):
  """The result equals `resize_bilinear` for stripes of any size."""
  monkeypatch.setattr(inference, "STRIPE", stripe)
  logits = np.random.default_rng(0).normal(size=(9, 7, 4)).astype(np.float32)
  resized = resize_bilinear(
    jnp.asarray(logits)[None], size, align_corners=False
  )[0]
  got = ids_at_size(logits, size)
  assert got.dtype == np.uint8
  np.testing.assert_array_equal(got, np.asarray(resized).argmax(axis=-1))


def test_more_than_256_classes_have_16_bit_ids():
  logits = np.zeros((2, 3, 300), np.float32)
  logits[..., 299] = 1
  for size in ((2, 3), (4, 4)):
    got = ids_at_size(logits, size)
    assert got.dtype == np.uint16 and (got == 299).all()


def test_windows_have_the_size_of_the_training_crop():
  c = configs.base()
  c.eval.mode, c.augment.crop = "sliding", (33, 44)
  assert inference.create(c).window == (33, 44)
  assert "sliding 33x44" in str(inference.create(c))


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"mode": "slidng"}, ["eval.mode", "did you mean 'sliding'"]),
    ({"scales": ()}, ["eval.scales=()"]),
    ({"scales": (1.0, 0.0)}, ["eval.scales=(1.0, 0.0)", "positive"]),
    ({"scales": (1.0, math.nan)}, ["eval.scales=(1.0, nan)", "finite"]),
    ({"scales": (math.inf,)}, ["eval.scales=(inf,)", "finite"]),
    ({"stride": 0.0}, ["eval.stride=0.0", "greater than 0"]),
    ({"stride": 1.5}, ["eval.stride=1.5", "at most 1"]),
  ],
)
def test_bad_fields_are_named(fields, words):
  with pytest.raises(UserError) as error:
    Inference(**fields)
  for word in words:
    assert word in str(error.value)


class Dropped(nn.Module):
  """A network that applies dropout to the image."""

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Dropout(0.5, name="dropout")(image, deterministic=not train)
    return {"logits": x}


def test_dropout_samples_average_probabilities():
  """Dropout doubles or drops a channel, each with probability 1/2."""
  image = jnp.asarray([[[[1.0, 0.0, 0.0]]]])
  scores = run(Dropped(), {}, image, dropout_samples=400)
  drawn = [softmax(np.array([x, 0, 0]))[0] for x in (0.0, 2.0)]
  # 400 draws: within five standard deviations of the mean.
  np.testing.assert_allclose(
    softmax(scores)[0, 0, 0, 0], np.mean(drawn), atol=0.06
  )
  assert run(Dropped(), {}, image)[0, 0, 0, 0] == 1
  with pytest.raises(UserError, match="dropout_samples=-1"):
    Inference(dropout_samples=-1)
