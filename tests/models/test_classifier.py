"""The classifier: overfitting, precision, dropout, stochastic depth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import losses, models
from jaxseg.analysis import network_shapes
from jaxseg.backbones.efficientnet import MBConv
from jaxseg.layers.conv import ConvNormAct
from jaxseg.layers.squeeze_excite import SqueezeExcite

SMALL = {
  "alexnet": {"name": "alexnet", "widths": (4, 4, 4, 4, 4)},
  "vgg": {"name": "vgg11_bn", "width": 2},
  "googlenet": {"name": "googlenet", "width_div": 16},
  "resnet": {"name": "resnet18", "width": 8, "stage_sizes": (1, 1, 1, 1)},
  "densenet": {
    "name": "densenet121",
    "block_sizes": (1, 1, 1, 1),
    "growth": 8,
    "stem_features": 16,
  },
  "mobilenet_v2": {
    "name": "mobilenet_v2",
    "stages": tuple((2, 8, 1, stride) for stride in (1, 2, 2, 2, 2)),
  },
}


def create(family, num_classes=4, **fields):
  return models.create(
    "classifier", num_classes=num_classes, backbone=SMALL[family], **fields
  )


def examples(count, side, classes=4):
  """Returns random images with unrelated labels, to be memorised."""
  rng = np.random.default_rng(0)
  image = rng.normal(size=(count, side, side, 3)).astype(np.float32)
  return jnp.asarray(image), jnp.asarray(rng.integers(0, classes, count))


@pytest.mark.slow
def test_overfits_32_images():
  """The accuracy is 100 % in evaluation, with the running statistics."""
  model = create("resnet")
  image, label = examples(32, 32)
  variables = jax.jit(lambda key: model.init(key, image, train=False))(
    jax.random.key(0)
  )
  optimizer = optax.adam(0.01)

  @jax.jit
  def step(variables, state):
    def loss_fn(params):
      outputs, updates = model.apply(
        {**variables, "params": params},
        image,
        train=True,
        mutable=["batch_stats"],
      )
      total, weight = losses.softmax_cross_entropy(
        outputs["logits"], label, ignore_label=255
      )
      return total / weight, updates

    grads, updates = jax.grad(loss_fn, has_aux=True)(variables["params"])
    delta, state = optimizer.update(grads, state)
    params = optax.apply_updates(variables["params"], delta)
    return {"params": params, **updates}, state

  state = optimizer.init(variables["params"])
  for _ in range(60):
    variables, state = step(variables, state)
  logits = jax.jit(lambda v: model.apply(v, image, train=False)["logits"])(
    variables
  )
  assert jnp.mean(logits.argmax(-1) == label) == 1.0


def test_bfloat16_keeps_float32_parameters_and_logits():
  for family in SMALL:
    model = create(family, dtype="bfloat16")
    for leaf in jax.tree.leaves(network_shapes(model, (64, 64))):
      assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", ["vgg16", "alexnet", "efficientnet_b0"])
def test_dropout_depends_on_its_key_and_is_off_in_evaluation(name):
  model = models.create("classifier", num_classes=3, backbone=name)
  c5 = jnp.ones((2, 7, 7, 4))
  head = models.classifier.paper_head(model.backbone, c5, conv=ConvNormAct)(
    3, features=16
  )
  variables = head.init(jax.random.key(0), c5, train=False)

  def train(seed):
    return head.apply(
      variables,
      c5,
      train=True,
      rngs={"dropout": jax.random.key(seed)},
      mutable=["batch_stats"],
    )[0]

  first, again, other = train(0), train(0), train(1)
  assert (first == again).all()
  assert (first != other).any()
  head.apply(variables, c5, train=False)  # Evaluation needs no key.


def test_published_dropout_rates():
  """The last dropout has torchvision's rate, or TensorFlow's 1 - keep_prob."""
  rates = {
    "alexnet": 0.5,
    "vgg16": 0.5,
    "googlenet": 0.2,
    "resnet18": 0.0,
    "densenet121": 0.0,
    "mobilenet_v2": 0.2,
    "xception41": 0.5,
    "efficientnet_b0": 0.2,
    "efficientnet_b3": 0.3,
    "efficientnet_b4": 0.4,
    "efficientnet_b7": 0.5,
  }
  for name, rate in rates.items():
    backbone = models.create("classifier", num_classes=2, backbone=name)
    head = models.classifier.paper_head(
      backbone.backbone, jnp.zeros((1, 1, 1, 8)), conv=ConvNormAct
    )
    assert head(2).dropout_rate == rate, name


def test_stochastic_depth_skips_whole_examples():
  """Branches that are kept are divided by the probability of keeping them."""
  block = MBConv(
    features=4,
    expansion=2,
    kernel_size=3,
    strides=1,
    dilation=1,
    drop_rate=0.25,
    residual=True,
    conv=lambda *args, **kwargs: ConvNormAct(*args, **kwargs, norm=None),
    squeeze_excite=SqueezeExcite,
  )
  x = jnp.asarray(np.random.default_rng(0).normal(size=(400, 4, 4, 4)))
  rngs = {"dropout": jax.random.key(1)}
  variables = jax.jit(lambda key: block.init(key, x, train=False))(
    jax.random.key(0)
  )
  branch = jax.jit(lambda v: block.apply(v, x, train=False) - x)(variables)
  y = jax.jit(lambda v: block.apply(v, x, train=True, rngs=rngs))(variables)
  skipped = jnp.all(y == x, axis=(1, 2, 3))
  # Four standard deviations of Binomial(400, 1/4) are 35.
  assert abs(int(skipped.sum()) - 100) < 35
  np.testing.assert_allclose(
    y[~skipped], (x + branch / 0.75)[~skipped], atol=1e-5
  )
