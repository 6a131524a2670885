"""DilatedNet: published counts, sizes and fields; identity contexts."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxseg import backbones, models, weights
from jaxseg.analysis import measure_receptive_field, network_shapes, total_size
from jaxseg.errors import UserError
from jaxseg.layers.dense_conv import DenseConvHead
from jaxseg.models import dilatednet

# By layer arithmetic: the front end has FCN-32s's layers. A basic context has
# 9 C^2 + C parameters in each 3x3 layer and C^2 + C in the last.
COUNTS = [
  (21, {"context": "none"}, 134_346_581),
  (11, {"context": "none"}, 134_305_611),
  (19, {"context": "none"}, 134_338_387),
  (21, {}, 134_346_581 + 28_392),
  (11, {}, 134_313_443),
  (11, {"context_layers": 7}, 134_312_343),
  (19, {"context_layers": 10}, 134_368_179),
  (21, {"context": "large"}, 141_149_720),
]
TINY = {
  "backbone": {"name": "vgg16", "width": 2, "stage_sizes": (1, 1, 1, 1, 1)},
  "features": 4,
  "kernel_size": 3,
}


def _create(num_classes=3, **fields):
  return models.create(
    "dilatednet", num_classes=num_classes, **{**TINY, **fields}
  )


@pytest.mark.parametrize(("classes", "fields", "count"), COUNTS)
def test_published_parameter_counts(classes, fields, count):
  model = models.create("dilatednet", num_classes=classes, **fields)
  _, variables = network_shapes(model, (65, 97))
  assert total_size(variables["params"]) == count


class FrontEnd(nn.Module):
  """The authors' front end, for an image that is already mirrored."""

  backbone: nn.Module
  features: int = 4096
  kernel_size: int = 7

  @nn.compact
  def __call__(self, image, *, train):
    x = self.backbone(image, train=train)["c5"]
    head = DenseConvHead(
      self.features, self.kernel_size, dilation=4, name="head"
    )
    return head(x, train=train)


@pytest.mark.parametrize(
  ("side", "scores"),
  [(500, 16), (628, 32), (852, 60), (900, 66), (1396, 128)],
)
def test_published_sizes_of_the_front_end(side, scores):
  model = FrontEnd(backbones.create(dilatednet.BACKBONE))
  output, _ = network_shapes(model, (side, side))
  assert output.shape == (1, scores, scores, 4096)


def test_margin_is_186():
  assert models.create("dilatednet", num_classes=21).margin() == 186


@pytest.mark.parametrize("size", [(1, 1), (9, 200), (65, 97)])
def test_images_of_any_size(size):
  outputs, _ = network_shapes(models.create("dilatednet", num_classes=21), size)
  assert outputs["logits"].shape == (1, *size, 21)


@pytest.mark.slow
def test_receptive_field_of_the_front_end():
  model = models.create(
    "dilatednet",
    num_classes=2,
    context="none",
    features=4,
    backbone={"name": "vgg16", "width": 4},
  )
  measured = measure_receptive_field(model, (420, 420), layer="score", draws=3)
  assert measured == ((380, 380), (8, 8))


@pytest.mark.parametrize(("layers", "field"), [(7, 35), (8, 67), (10, 259)])
def test_receptive_field_of_the_contexts(layers, field):
  """A layer of dilation d adds 2 d: 1 1 2 4 8 1, then 16, then 32 and 64."""
  dilations = dilatednet.DILATIONS[layers]
  context = dilatednet.Context(dilations, (1,) * len(dilations))
  size = (field + 9, field + 9)
  measured = measure_receptive_field(context, size, draws=1, channels=2)
  assert measured == ((field, field), (1, 1))


def test_basic_context_is_initially_the_identity():
  """Positive scores are unchanged, also at the borders."""
  for layers, dilations in dilatednet.DILATIONS.items():
    context = dilatednet.Context(dilations, (1,) * (layers - 1))
    scores = jax.random.uniform(jax.random.key(1), (2, 9, 12, 5))
    run = functools.partial(context.init_with_output, train=False)
    y, _ = jax.jit(run)(jax.random.key(0), scores)
    np.testing.assert_array_equal(y, scores)


def test_large_context_initially_passes_every_class_on():
  """Kernels equal Eq. 5, and the product of the centre taps is the identity."""
  classes = 3
  sizes = [classes * m for m in (1, *dilatednet.MULTIPLIERS["large"][8], 1)]
  product = np.eye(classes)
  for a, b in zip(sizes[:-1], sizes[1:], strict=True):
    init = dilatednet.identity_init(classes)
    kernel = jax.jit(functools.partial(init, shape=(3, 3, a, b)))(
      jax.random.key(0)
    )
    expected = np.zeros((3, 3, a, b))
    for i in range(a):
      for j in range(b):
        if i * classes // a == j * classes // b:
          expected[1, 1, i, j] = classes / b
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)
    product = product @ np.asarray(kernel[1, 1])
  np.testing.assert_allclose(product, np.eye(classes), rtol=1e-5)


def test_large_context_is_noise_outside_the_identity():
  init = dilatednet.identity_init(4, 0.01)
  kernel = np.array(init(jax.random.key(0), (3, 3, 32, 64)))
  centre = kernel[1, 1].reshape(4, 8, 4, 16)
  groups = np.eye(4, dtype=bool)[:, None, :, None] & np.ones_like(centre, bool)
  np.testing.assert_allclose(centre[groups], 1 / 16)
  kernel[1, 1][groups.reshape(32, 64)] = np.nan
  assert abs(np.nanstd(kernel) - 0.01) < 2e-4  # Of 18,000 numbers.


def test_scores_are_those_of_every_eighth_pixel():
  """The reference is the front end on an image that NumPy mirrored."""
  model = _create(context="none")
  image = np.random.default_rng(0).standard_normal((1, 17, 22, 3), np.float32)
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0), image)
  logits = jax.jit(functools.partial(model.apply, train=False))(
    variables, image
  )["logits"]
  # (1 + 2 + 4 + 8 + 16) + 32, which is more than the image has.
  margin = 63
  # Scores lie on rows 0, 8, 16 and columns 0, 8, 16, 24.
  pads = [(margin, 3 * 8 + margin - 17), (margin, 4 * 8 + margin - 22)]
  mirrored = np.pad(image, [(0, 0), *pads, (0, 0)], mode="reflect")
  front = FrontEnd(model.backbone, features=4, kernel_size=3)
  parts = {k: variables["params"][k] for k in ("backbone", "head")}
  x = jax.jit(functools.partial(front.apply, train=False))(
    {"params": parts}, mirrored
  )
  score = variables["params"]["score"]
  scores = x @ score["kernel"][0, 0] + score["bias"]
  assert scores.shape == (1, 3, 4, 3)
  tolerance = 1e-5 * np.abs(scores).max()
  np.testing.assert_allclose(
    logits[:, ::8, ::8], scores[:, :, :3], atol=tolerance
  )
  # The last column is 5 / 8 of the way between two scores.
  expected = scores[:, :, 2] * 3 / 8 + scores[:, :, 3] * 5 / 8
  np.testing.assert_allclose(logits[:, ::8, 21], expected, atol=tolerance)


def test_joint_training_starts_from_the_front_end(tmp_path):
  """The whole network then computes what the front end alone computes."""
  front, joint = _create(context="none"), _create()
  image = jax.random.normal(jax.random.key(0), (1, 9, 9, 3))
  trained, fresh = (
    jax.jit(functools.partial(model.init, train=False))(
      jax.random.key(i), image
    )
    for i, model in enumerate((front, joint))
  )
  trained["params"]["score"]["bias"] += (
    1.0  # The identity holds for positive scores.
  )
  path = tmp_path / "frontend.npz"
  weights.save(path, trained)
  variables = weights.initialise(
    joint, fresh, model=str(path), skip=("^context/",)
  )
  before, after = (
    jax.jit(functools.partial(model.apply, train=False))(v, image)["logits"]
    for model, v in ((front, trained), (joint, variables))
  )
  assert before.min() > 0
  np.testing.assert_allclose(after, before, rtol=1e-6)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"context": "bassic"}, ["model.context", "did you mean 'basic'"]),
    ({"context_layers": 9}, ["context_layers=9", "7 or 8 or 10"]),
    (
      {"context": "large", "context_layers": 10},
      ["expected 8 layers", "large"],
    ),
    ({"backbone": "resnet18"}, ["ResNet", "output_stride=8", "vgg16"]),
    ({"backbone": {"name": "vgg16", "padding": 1}}, ["padding=0"]),
  ],
)
def test_errors_are_one_line(fields, words):
  with pytest.raises(UserError) as error:
    network_shapes(_create(**fields), (9, 9))
  assert all(word in str(error.value) for word in words), error.value
  assert "\n" not in str(error.value)
