"""CRF-RNN equals mean field with parameters, and its parameters train."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg.errors import UserError
from jaxseg.layers.crf_rnn import CRFRNN
from jaxseg.layers.crf_settings import CRF
from jaxseg.layers.dense_crf import mean_field

N, H, W, K = 2, 6, 7, 3
SMALL = CRFRNN(
  K, theta_alpha=4.0, theta_beta=40.0, theta_gamma=1.5, filter="exact"
)


def case():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(N, H, W, K)).astype(np.float32)
  image = rng.integers(0, 256, (N, H, W, 3), np.uint8)
  return jnp.asarray(logits), jnp.asarray(image)


@functools.cache
def initial():
  return SMALL.init(jax.random.key(0), *case(), train=True)


def test_published_initial_values():
  """Kernels are the identity, the compatibility is minus the identity."""
  layer = CRFRNN(K)
  assert (layer.theta_alpha, layer.theta_beta, layer.theta_gamma) == (160, 3, 3)
  assert (layer.iterations, layer.train_iterations) == (10, 5)
  params = initial()["params"]
  eye = np.eye(K)
  assert set(params) == {
    "spatial_weights",
    "bilateral_weights",
    "compatibility",
  }
  np.testing.assert_array_equal(params["spatial_weights"], eye)
  np.testing.assert_array_equal(params["bilateral_weights"], eye)
  np.testing.assert_array_equal(params["compatibility"], -eye)


@pytest.mark.parametrize("train, iterations", [(True, 5), (False, 10)])
def test_initial_layer_is_a_potts_model(train, iterations):
  logits, image = case()
  refined = SMALL.apply(initial(), logits, image, train=train)
  crf = CRF(
    iterations=iterations,
    spatial_weight=1.0,
    spatial_std=1.5,
    bilateral_weight=1.0,
    bilateral_std=4.0,
    colour_std=40.0,
    normalisation="after",
    filter="exact",
  )
  np.testing.assert_allclose(
    jax.nn.log_softmax(refined), mean_field(logits, image, crf), atol=1e-4
  )
  # U - C M is no log-probability; its exponentials do not sum to one.
  assert not np.allclose(jnp.exp(refined).sum(axis=-1), 1, atol=0.1)


def test_one_iteration_written_down():
  """Equals a sum over all pairs, for matrices of any form."""
  rng = np.random.default_rng(1)
  logits, image = case()
  layer = SMALL.clone(iterations=1)
  names = ("spatial_weights", "bilateral_weights", "compatibility")
  params = {
    name: jnp.asarray(rng.normal(size=(K, K)), jnp.float32) for name in names
  }
  got = layer.apply({"params": params}, logits, image, train=False)
  place = np.mgrid[:H, :W].reshape(2, -1).T
  apart = np.square(place[:, None] - place[None]).sum(-1)
  for i in range(N):
    colour = np.asarray(image[i], float).reshape(-1, 3)
    unlike = np.square(colour[:, None] - colour[None]).sum(-1)
    u = np.asarray(logits[i], float).reshape(-1, K)
    q = np.exp(u) / np.exp(u).sum(axis=1, keepdims=True)
    total = 0
    for name, squared in (
      ("spatial_weights", apart / 1.5**2),
      ("bilateral_weights", apart / 4.0**2 + unlike / 40.0**2),
    ):
      kernel = np.exp(-squared / 2)
      message = kernel @ q / kernel.sum(axis=1, keepdims=True)
      total = total + message @ np.asarray(params[name]).T
    expected = u - total @ np.asarray(params["compatibility"]).T
    np.testing.assert_allclose(got[i].reshape(-1, K), expected, atol=1e-4)


def test_it_learns_together_with_its_logits():
  """On noise, the loss falls and every parameter has a gradient."""
  logits, image = case()
  image = image.at[:, :, 4:].set(250).at[:, :, :4].set(5)
  label = jnp.broadcast_to((jnp.arange(W) >= 4).astype(jnp.int32), (N, H, W))
  layer, params = SMALL.clone(filter="lattice"), initial()
  optimizer = optax.adam(0.05)

  @jax.jit
  def step(params, state):
    def loss(params):
      refined = layer.apply(params, logits, image, train=True)
      return optax.softmax_cross_entropy_with_integer_labels(
        refined, label
      ).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value, gradient

  state = optimizer.init(params)
  losses = []
  for _ in range(30):
    params, state, value, gradient = step(params, state)
    losses.append(float(value))
    if len(losses) == 1:
      assert all((g != 0).all() for g in jax.tree.leaves(gradient))
  assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("what", ["size", "classes", "rank"])
def test_shapes_that_do_not_fit_are_refused(what):
  logits, image = case()
  bad = {
    "size": (logits[:, :-1], image),
    "classes": (logits[..., :-1], image),
    "rank": (logits[0], image[0]),
  }[what]
  with pytest.raises(
    UserError, match=r"CRF-RNN: logits are \[.*\[n, h, w, 3\]"
  ):
    CRFRNN(K).init(jax.random.key(0), *bad, train=False)
