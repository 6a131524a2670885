"""Mean field against its definition, pixel by pixel in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import UserError
from jaxseg.layers import dense_crf
from jaxseg.layers.crf_settings import CRF, NORMALISATIONS, SETTINGS, parse
from jaxseg.layers.dense_crf import mean_field

SIZE, CLASSES = (5, 6), 3
SMALL = CRF(
  iterations=3,
  spatial_weight=0.7,
  spatial_std=1.5,
  bilateral_weight=1.1,
  bilateral_std=(2.0, 4.0),
  colour_std=(60.0, 50.0, 70.0),
  filter="exact",
)


def case(seed=0, n=2):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(n, *SIZE, CLASSES)).astype(np.float32)
  image = rng.integers(0, 256, (n, *SIZE, 3), np.uint8)
  return jnp.asarray(logits), jnp.asarray(image)


def double_loop(unary, image, crf):
  """Computes Q of one image pair by pair (Eq. 1-4, Algorithm 1)."""
  h, w, k = unary.shape
  place = [(y, x) for y in range(h) for x in range(w)]
  unary = np.asarray(unary, np.float64).reshape(h * w, k)
  colour = np.asarray(image, np.float64).reshape(h * w, -1)
  spatial = np.zeros((h * w, h * w))
  bilateral = np.zeros((h * w, h * w))
  sg = np.broadcast_to(crf.spatial_std, 2)
  sa = np.broadcast_to(crf.bilateral_std, 2)
  sb = np.asarray(crf.colour_std, np.float64)
  for i, p in enumerate(place):
    for j, q in enumerate(place):
      apart = np.subtract(p, q)
      near = np.sum((apart / sg) ** 2)
      alike = np.sum((apart / sa) ** 2)
      alike += np.sum(((colour[i] - colour[j]) / sb) ** 2)
      spatial[i, j], bilateral[i, j] = np.exp(-near / 2), np.exp(-alike / 2)
  q = softmax(unary)
  for _ in range(crf.iterations):
    energy = 0
    for kernel, weight in (
      (spatial, crf.spatial_weight),
      (bilateral, crf.bilateral_weight),
    ):
      mu = np.asarray(weight, np.float64)
      mu = -mu * np.eye(k) if mu.ndim == 0 else mu
      mu = np.diag(mu) if mu.ndim == 1 else (mu + mu.T) / 2
      mass = kernel.sum(axis=1)
      left = {"after": mass, "symmetric": np.sqrt(mass)}
      right = {"before": mass, "symmetric": np.sqrt(mass)}
      kernel = kernel / left.get(crf.normalisation, mass * 0 + 1)[:, None]
      kernel = kernel / right.get(crf.normalisation, mass * 0 + 1)[None]
      energy = energy + kernel @ q @ mu.T
    q = softmax(unary - energy)
  return q.reshape(h, w, k)


def softmax(x):
  x = np.exp(x - x.max(axis=-1, keepdims=True))
  return x / x.sum(axis=-1, keepdims=True)


VECTOR = (-0.5, 0.2, -1.0)
MATRIX = ((0.0, 1.0, 0.5), (0.2, 0.0, 2.0), (0.1, 0.0, -0.3))


@pytest.mark.parametrize(
  "fields",
  [{"normalisation": name} for name in NORMALISATIONS]
  + [{"spatial_weight": VECTOR, "bilateral_weight": MATRIX}],
  ids=str,
)
def test_exact_is_the_double_loop(fields):
  crf = dataclasses.replace(SMALL, **fields)
  logits, image = case()
  got = np.exp(mean_field(logits, image, crf))
  for i in range(2):
    expected = double_loop(logits[i], image[i], crf)
    np.testing.assert_allclose(got[i], expected, atol=1e-5)


def test_exact_in_blocks(monkeypatch):
  """30 pixels in blocks of 7 rows leave the last block partly empty."""
  monkeypatch.setattr(dense_crf, "PAIRS", 7 * 30 + 1)
  rng = np.random.default_rng(0)
  features = jnp.asarray(rng.normal(size=(30, 5)), jnp.float32)
  values = jnp.asarray(rng.normal(size=(30, 2)), jnp.float32)
  kernel = np.exp(
    -np.square(features[:, None] - features[None]).sum(axis=-1) / 2
  )
  got = dense_crf.exact_filter(features, values)
  np.testing.assert_allclose(got, kernel @ values, atol=1e-5)


def test_near_points_far_from_the_origin_keep_their_distance():
  """|a|^2 + |b|^2 - 2ab would be off by 10 at 1e4 standard deviations."""
  features = jnp.array([[1e4, 1e4], [1e4 + 1, 1e4]])
  got = dense_crf.exact_filter(features, jnp.array([[1.0], [0.0]]))
  np.testing.assert_allclose(got[:, 0], [1, np.exp(-0.5)], rtol=1e-5)


def test_no_iterations_leave_the_probabilities():
  logits, image = case()
  got = mean_field(logits, image, CRF(iterations=0))
  np.testing.assert_allclose(got, jax.nn.log_softmax(logits), atol=1e-6)


def test_an_impossible_label_stays_impossible():
  logits, image = case()
  logits = logits.at[..., 1].set(-jnp.inf)
  q = np.exp(mean_field(logits, image, SMALL))
  assert (q[..., 1] == 0).all()
  np.testing.assert_allclose(q.sum(axis=-1), 1, atol=1e-5)


def test_one_image_is_a_batch_of_one_and_grey_images_do():
  logits, image = case()
  crf = dataclasses.replace(SMALL, colour_std=60.0)
  np.testing.assert_allclose(
    mean_field(logits[0], image[0, ..., :1], crf),
    mean_field(logits[:1], image[:1, ..., :1], crf)[0],
    atol=1e-5,
  )


@pytest.mark.parametrize(
  "crf_filter, shape", [("lattice", (CLASSES, CLASSES)), ("exact", ())]
)
def test_gradient_is_the_finite_difference(crf_filter, shape):
  """Holds for probabilities and weights, each along a random direction."""
  rng = np.random.default_rng(0)
  logits, image = case()
  target = rng.normal(size=logits.shape).astype(np.float32)
  crf = dataclasses.replace(SMALL, filter=crf_filter)
  at = [logits, *(jnp.asarray(rng.normal(size=shape) / 2) for _ in range(2))]

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
  def loss(logits, spatial, bilateral):
    log_q = mean_field(
      logits, image, crf, spatial_weight=spatial, bilateral_weight=bilateral
    )
    return jnp.sum(jnp.exp(log_q) * target)

  _, gradients = loss(*at)
  step = 1e-2
  for i, gradient in enumerate(gradients):
    direction = jnp.asarray(rng.normal(size=at[i].shape))
    moved = [
      loss(*at[:i], at[i] + sign * step * direction, *at[i + 1 :])[0]
      for sign in (1, -1)
    ]
    expected = (moved[0] - moved[1]) / (2 * step)
    got = jnp.vdot(gradient, direction)
    np.testing.assert_allclose(got, expected, rtol=1e-2, atol=2e-3)


def test_colours_decide():
  """Pixels with equal probabilities take the label of their colour."""
  image = np.zeros((9, 9, 3), np.uint8)
  image[:, 4:] = 200
  p = np.full((9, 9, 2), 0.5, np.float32)
  p[3:6, 2], p[3:6, 6] = (0.9, 0.1), (0.1, 0.9)
  for crf_filter in ("lattice", "exact"):
    crf = CRF(bilateral_std=10.0, filter=crf_filter)
    log_q = mean_field(jnp.log(p), jnp.asarray(image), crf)
    expected = np.tile(np.arange(9) >= 4, (9, 1))
    np.testing.assert_array_equal(log_q.argmax(axis=-1), expected)


# (w1, sa, sb, w2, sg, iterations) as released with the papers.
PUBLISHED = {
  "dense_inference": (10, 60, 20, 3, 3, 10),
  "pydensecrf": (10, 80, 13, 3, 3, 5),
  "deeplab_v1": (5, 50, 10, 3, 3, 10),
  "deeplab_v1_msc": (3, 95, 3, 3, 3, 10),
  "deeplab_v1_coco": (5, 67, 3, 3, 3, 10),
  "deeplab_v1_largefov": (4, 121, 5, 3, 3, 10),
  "deeplab_v1_msc_largefov": (4, 83, 5, 3, 3, 10),
  "deeplab_v1_coco_largefov": (5, 69, 5, 3, 3, 10),
  "deeplab_v1_msc_largefov_coco": (4, 59, 5, 3, 3, 10),
  "deeplab_v2": (4, 67, 3, 3, 1, 10),
  "deconvnet": (5, 20, 3, 3, 3, 10),
}


def test_published_numbers():
  assert PUBLISHED == {
    name: (
      crf.bilateral_weight,
      crf.bilateral_std,
      crf.colour_std,
      crf.spatial_weight,
      crf.spatial_std,
      crf.iterations,
    )
    for name, crf in SETTINGS.items()
  }
  assert {crf.normalisation for crf in SETTINGS.values()} == {"symmetric"}


def test_text_is_read():
  assert parse("") is None
  assert parse("deeplab_v2") == SETTINGS["deeplab_v2"]
  assert parse("iterations=2") == CRF(iterations=2)
  assert parse("pydensecrf, filter=exact,colour_std=3x4x5") == CRF(
    filter="exact", colour_std=(3.0, 4.0, 5.0)
  )
  text = str(SMALL).removeprefix("CRF (").removesuffix(")")
  assert parse(text) == SMALL


@pytest.mark.parametrize(
  "text, words",
  [
    ("deeplab_v3", ["eval.crf 'deeplab_v3'", "did you mean 'deeplab_v2'"]),
    ("deeplab_v2,iteration=3", ["'iteration'", "did you mean 'iterations'"]),
    ("iterations=ten", ["iterations=ten", "expected iterations=NUMBER"]),
    ("deeplab_v2,filter", ["filter ''", "exact, lattice"]),
    ("spatial_std=3xx3", ["spatial_std=3xx3", "NUMBER, or YxX"]),
    ("spatial_std=0", ["spatial_std=0", "above 0"]),
    ("pydensecrf,,iterations=1", ["key of eval.crf ''"]),
    ("normalisation=both", ["normalisation 'both'", "symmetric"]),
  ],
)
def test_bad_text_is_one_line(text, words):
  expect_error(lambda: parse(text), words)


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"iterations": -1}, ["iterations=-1", "0 or more"]),
    ({"spatial_std": 0.0}, ["spatial_std=0.0", "above 0"]),
    ({"bilateral_std": (80.0, -1.0)}, ["bilateral_std=(80.0, -1.0)"]),
    ({"colour_std": float("nan")}, ["colour_std=nan", "finite"]),
    ({"spatial_std": (1.0, 2.0, 3.0)}, ["spatial_std", "(y, x)"]),
    ({"spatial_weight": float("inf")}, ["spatial_weight=inf", "finite"]),
    ({"bilateral_weight": ((1.0, 2.0), (3.0,))}, ["square matrix"]),
    ({"bilateral_weight": ((1.0, 2.0),)}, ["square matrix"]),
    ({"filter": "latice"}, ["did you mean 'lattice'"]),
  ],
)
def test_bad_settings_are_one_line(fields, words):
  expect_error(lambda: CRF(**fields), words)


def test_bad_arrays_are_one_line():
  logits, image = case()
  for bad, words in (
    ((logits[:, :-1], image, SMALL), ["[2, 4, 6, 3]", "[2, 5, 6, 3]", "size"]),
    ((logits[0], image, SMALL), ["[5, 6, 3]", "[2, 5, 6, 3]"]),
    ((logits, image[..., :1], SMALL), ["colour_std", "1 channels"]),
    ((logits.at[1, 2, 3, 0].set(jnp.nan), image, SMALL), ["[1, 2, 3, 0]"]),
    ((logits, image, CRF(spatial_weight=(1.0, 2.0))), ["[2]", "3 classes"]),
    ((logits, image, CRF(spatial_std=1e-4)), ["spatial_std", "exact"]),
    ((logits, image, CRF(colour_std=1e-3)), ["colour_std", "too small"]),
  ):
    expect_error(functools.partial(mean_field, *bad), words)
  expect_error(
    lambda: mean_field(
      logits, image, SMALL, spatial_weight=jnp.zeros((CLASSES, 2))
    ),
    ["spatial_weight has shape [3, 2]"],
  )


def expect_error(call, words):
  with pytest.raises(UserError) as error:
    call()
  assert "\n" not in str(error.value)
  for word in words:
    assert word in str(error.value)
