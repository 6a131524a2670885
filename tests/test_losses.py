"""Losses against closed forms in float64, optax, torch, and the ignore law."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import losses
from jaxseg.errors import UserError

IGNORE = 255
CLASSES = 5
WEIGHTS = (0.5, 2.0, 1.0, 0.25, 3.0)


def example(seed=0, shape=(2, 6, 7), ignored=0.3):
  rng = np.random.default_rng(seed)
  logits = rng.normal(scale=3, size=(*shape, CLASSES)).astype(np.float32)
  label = rng.integers(0, CLASSES, shape).astype(np.uint8)
  label[rng.random(shape) < ignored] = IGNORE
  return logits, label


def softmax_cross_entropy(logits, label, **options):
  """Calls `losses.softmax_cross_entropy` with NumPy arrays."""
  return losses.softmax_cross_entropy(
    jnp.asarray(logits), jnp.asarray(label), **options
  )


def heads_loss(outputs, label, **options):
  outputs = {key: jnp.asarray(value) for key, value in outputs.items()}
  loss = losses.HeadsLoss(**options)
  return loss(outputs, jnp.asarray(label), ignore_label=IGNORE)


def reference(logits, label, weights, smoothing):
  """The docstring's formula, pixel by pixel in float64."""
  total = weight = count = 0.0
  k = logits.shape[-1]
  pixels = zip(logits.reshape(-1, k), label.reshape(-1), strict=True)
  for x, y in pixels:
    if y == IGNORE:
      continue
    log_p = x.astype(np.float64) - np.log(np.sum(np.exp(np.float64(x))))
    total -= (1 - smoothing) * weights[y] * log_p[y]
    total -= smoothing / k * np.dot(weights, log_p)
    weight += weights[y]
    count += 1
  return total, weight, count


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_the_formula(weights, smoothing):
  logits, label = example()
  expected = reference(logits, label, weights or np.ones(CLASSES), smoothing)
  options = {
    "ignore_label": IGNORE,
    "class_weights": weights,
    "label_smoothing": smoothing,
  }
  total, weight = softmax_cross_entropy(logits, label, **options)
  np.testing.assert_allclose(total, expected[0], rtol=1e-6)
  np.testing.assert_allclose(weight, expected[1], rtol=1e-6)
  total, count = softmax_cross_entropy(
    logits, label, normalise_by="count", **options
  )
  np.testing.assert_allclose(total, expected[0], rtol=1e-6)
  assert count == expected[2]


def test_uniform_logits_cost_log_k():
  label = np.zeros((3, 4), np.int32)
  total, weight = softmax_cross_entropy(
    np.full((3, 4, CLASSES), 7.0, np.float32), label, ignore_label=IGNORE
  )
  np.testing.assert_allclose(total / weight, np.log(CLASSES), rtol=1e-6)


def test_equals_optax_in_value_and_gradient():
  logits, label = example(ignored=0.0)

  def ours(x):
    return softmax_cross_entropy(x, label, ignore_label=IGNORE)[0]

  def theirs(x):
    return jnp.sum(
      optax.softmax_cross_entropy_with_integer_labels(x, label.astype(np.int32))
    )

  for a, b in zip(
    jax.value_and_grad(ours)(logits),
    jax.value_and_grad(theirs)(logits),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_huge_logits_stay_finite(scale):
  logits, label = example()
  value, gradient = jax.value_and_grad(
    lambda x: softmax_cross_entropy(x, label, ignore_label=IGNORE)[0]
  )(logits * np.float32(scale))
  assert np.isfinite(value) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("stray", [-1, 5, 200, IGNORE])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_pixels_change_neither_loss_nor_gradient(stray, smoothing):
  """Any id may be the ignore label, with any logits at its pixels."""
  logits, label = example()
  keep = label != IGNORE
  label = np.where(keep, label, np.int32(stray))

  def loss(x, y):
    return softmax_cross_entropy(
      x,
      y,
      ignore_label=stray,
      class_weights=WEIGHTS,
      label_smoothing=smoothing,
    )

  (value, weight), gradient = (
    loss(logits, label),
    jax.grad(lambda x: loss(x, label)[0])(logits),
  )
  (expected, expected_weight), expected_gradient = (
    loss(logits[keep], label[keep]),
    jax.grad(lambda x: loss(x, label[keep])[0])(logits[keep]),
  )
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  np.testing.assert_allclose(weight, expected_weight, rtol=1e-6)
  np.testing.assert_array_equal(np.asarray(gradient)[~keep], 0)
  np.testing.assert_allclose(
    np.asarray(gradient)[keep], expected_gradient, rtol=1e-6
  )
  # Other logits at ignored pixels: the same bits.
  other = np.where(keep[..., None], logits, -logits + 1)
  assert loss(other, label)[0] == value
  np.testing.assert_array_equal(
    jax.grad(lambda x: loss(x, label)[0])(other), gradient
  )


def test_all_ignored_is_zero_and_finite():
  logits, label = example(ignored=1.1)
  for options in ({}, {"class_weights": WEIGHTS, "label_smoothing": 0.1}):

    def loss(x, options=options):
      return softmax_cross_entropy(x, label, ignore_label=IGNORE, **options)

    assert loss(logits) == (0.0, 0.0)
    np.testing.assert_array_equal(
      jax.grad(lambda x: loss(x)[0])(logits),
      0.0,  # noqa: B023
    )


def test_weight_counts_more_pixels_than_float32_can_one_by_one():
  """2^24 + 1 ones: a sequential float32 sum would stop at 2^24."""
  label = jnp.zeros(2**24 + 2**12, jnp.uint8)
  logits = jnp.zeros((*label.shape, 1), jnp.float32)
  _, weight = jax.jit(
    lambda x, y: softmax_cross_entropy(x, y, ignore_label=IGNORE)
  )(logits, label)
  assert weight == 2**24 + 2**12


def test_images_as_the_normaliser_add_up_their_pixels():
  """For 3 and 1 valid pixels, the loss is a sum of four costs over two."""
  logits = jnp.zeros((2, 1, 3, 4))
  label = np.array([[[0, 1, 2]], [[3, 255, 255]]])
  total, weight = losses.softmax_cross_entropy(
    logits, jnp.asarray(label), ignore_label=255, normalise_by="images"
  )
  np.testing.assert_allclose(total, 4 * np.log(4), rtol=1e-6)
  assert weight == 2


def test_a_label_stride_reads_every_nth_pixel_and_row():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.standard_normal((2, 9, 12, 3)), jnp.float32)
  label = jnp.asarray(rng.integers(0, 3, (2, 9, 12)))
  got = heads_loss({"logits": logits}, label, label_stride=4)
  want = heads_loss({"logits": logits[:, ::4, ::4]}, label[:, ::4, ::4])
  np.testing.assert_array_equal(got, want)
  assert got[1] == 2 * 3 * 3
  with pytest.raises(UserError, match="label_stride=4 for labels of whole"):
    heads_loss({"logits": logits[:, 0, 0]}, label[:, 0, 0], label_stride=4)


def test_heads_are_weighted_and_share_one_weight():
  logits, label = example()
  aux = example(seed=1)[0]
  options = {"ignore_label": IGNORE, "class_weights": WEIGHTS}
  main_sum, weight = softmax_cross_entropy(logits, label, **options)
  aux_sum, _ = softmax_cross_entropy(aux, label, **options)
  outputs = {"logits": logits, "aux_logits": aux, "unused": logits}
  heads = {"logits": 1.0, "aux_logits": 0.4}
  total, shared = heads_loss(outputs, label, heads=heads, class_weights=WEIGHTS)
  np.testing.assert_allclose(total, main_sum + 0.4 * aux_sum, rtol=1e-6)
  assert shared == weight


def test_losses_can_be_hashed_and_compared():
  heads = {"logits": 1.0, "aux_logits": 0.4}
  a, b = (losses.HeadsLoss(heads=dict(heads)) for _ in range(2))
  assert a == b and hash(a) == hash(b)
  assert a != losses.HeadsLoss()


@pytest.mark.parametrize(
  "call, words",
  [
    (
      lambda x, y: heads_loss({"logits": x}, y, heads={"logit": 1.0}),
      ["'logit'", "did you mean 'logits'", "loss.heads"],
    ),
    (
      lambda x, y: heads_loss({"logits": x}, y, heads={}),
      ["loss.heads is empty", "logits"],
    ),
    (
      lambda x, y: softmax_cross_entropy(
        x, y, ignore_label=IGNORE, class_weights=(1.0, 2.0)
      ),
      ["loss.class_weights", "2 numbers for 5 classes"],
    ),
    (
      lambda x, y: softmax_cross_entropy(
        x, y, ignore_label=IGNORE, normalise_by="wieght"
      ),
      ["'wieght'", "did you mean 'weight'"],
    ),
    (
      lambda x, y: heads_loss({"logits": x}, y, normalise_by="wieght"),
      ["loss.normalise_by", "'wieght'", "did you mean 'weight'"],
    ),
  ],
)
def test_errors_say_what_was_seen_and_expected(call, words):
  with pytest.raises(UserError) as error:
    call(*example())
  for word in words:
    assert word in str(error.value)


@pytest.mark.torch
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_torch(weights, smoothing):
  torch = pytest.importorskip("torch")
  logits, label = example()
  x = torch.tensor(np.moveaxis(logits, -1, 1)).requires_grad_()
  loss = torch.nn.functional.cross_entropy(
    x,
    torch.tensor(label.astype(np.int64)),
    weight=None if weights is None else torch.tensor(weights),
    ignore_index=IGNORE,
    label_smoothing=smoothing,
  )
  loss.backward()

  def ours(x):
    total, weight = softmax_cross_entropy(
      x,
      label,
      ignore_label=IGNORE,
      class_weights=weights,
      label_smoothing=smoothing,
    )
    return total / weight

  value, gradient = jax.value_and_grad(ours)(logits)
  np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
  np.testing.assert_allclose(
    gradient, np.moveaxis(x.grad.numpy(), 1, -1), rtol=1e-4, atol=1e-7
  )
