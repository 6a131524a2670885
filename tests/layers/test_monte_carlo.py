"""Monte Carlo dropout equals the moments over separately drawn networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import network_shapes
from jaxseg.layers.monte_carlo import monte_carlo
from random_variables import lecun_normed


def _frozen(model):
  """The same network with norms that use their running statistics."""
  norm = functools.partial(model.norm, frozen=True)
  return model.clone(norm=norm, backbone=model.backbone.clone(norm=norm))


@pytest.mark.parametrize(("samples", "at_once"), [(3, 2), (4, 2)])
def test_monte_carlo_is_mean_and_variance_over_keys(samples, at_once):
  backbone = {"name": "vgg16_bn", "width": 4, "stage_sizes": (1, 1, 1, 1, 1)}
  model = models.create("bayesian_segnet", num_classes=3, backbone=backbone)
  image = jax.random.normal(jax.random.key(0), (2, 16, 19, 3))
  image = image[jnp.array([0, 1, 0])]
  variables = lecun_normed(network_shapes(model, (16, 19))[1])
  key = jax.random.key(5)
  mean, variance = jax.jit(
    functools.partial(
      monte_carlo, model, key=key, samples=samples, at_once=at_once
    )
  )(variables, image)

  @jax.jit
  def draw(key, one):
    return _frozen(model).apply(
      variables, one[None], train=True, rngs={"dropout": key}
    )["logits"][0]

  # Each image is drawn by itself: the result does not depend on its batch.
  drawn = [
    jax.nn.softmax(jnp.stack([draw(k, one) for one in image]))
    for k in jax.random.split(key, samples)
  ]
  assert mean.shape == variance.shape == (3, 16, 19, 3)
  np.testing.assert_allclose(mean[0], mean[2], atol=1e-6)
  np.testing.assert_allclose(mean, np.mean(drawn, axis=0), atol=1e-5)
  np.testing.assert_allclose(variance, np.var(drawn, axis=0), atol=1e-5)
  np.testing.assert_allclose(mean.sum(-1), 1, atol=1e-5)
  assert variance.max() > 1e-3


def test_without_dropout_nothing_varies():
  model = models.create("segnet_basic", num_classes=3, features=4, stages=1)
  image = 255 * jax.random.uniform(jax.random.key(0), (1, 9, 11, 3))
  variables = lecun_normed(network_shapes(model, (9, 11))[1])
  run = functools.partial(monte_carlo, model, samples=2)
  mean, variance = jax.jit(run)(variables, image, key=jax.random.key(0))
  logits = model.apply(variables, image, train=False)["logits"]
  np.testing.assert_allclose(mean, jax.nn.softmax(logits), atol=1e-5)
  np.testing.assert_allclose(variance, 0, atol=1e-9)
