"""Normalisation: Ioffe & Szegedy's Algorithm 1, freezing, torch's layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import UserError
from jaxseg.layers.norm import (
  NORMS,
  BatchNorm,
  GroupNorm,
  NoNorm,
  group_count,
)

SHAPE = (3, 4, 5, 6)
COUNT = 3 * 4 * 5  # Number of values that each mean averages.


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  x = (3 + 2 * rng.standard_normal(SHAPE)).astype(np.float32)
  scale, bias = (rng.standard_normal(SHAPE[-1]) for _ in range(2))
  return x, scale.astype(np.float32), bias.astype(np.float32)


def _variables(scale, bias, mean=0.0, var=1.0):
  fill = functools.partial(jnp.full, SHAPE[-1])
  return {
    "params": {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)},
    "batch_stats": {"mean": fill(mean), "var": fill(var)},
  }


def test_training_normalises_by_the_batch():
  x, scale, bias = _inputs()
  y, _ = BatchNorm().apply(
    _variables(scale, bias), jnp.asarray(x), train=True, mutable="batch_stats"
  )
  wide = x.astype(np.float64)
  mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
  want = (wide - mean) / np.sqrt(var + 1e-5) * scale + bias
  np.testing.assert_allclose(y, want, atol=1e-5)


def test_running_statistics_move_a_tenth_of_the_way():
  x, scale, bias = _inputs()
  _, state = BatchNorm().apply(
    _variables(scale, bias, mean=1.0, var=4.0),
    jnp.asarray(x),
    train=True,
    mutable="batch_stats",
  )
  stats, wide = state["batch_stats"], x.astype(np.float64)
  np.testing.assert_allclose(
    stats["mean"], 0.9 * 1.0 + 0.1 * wide.mean((0, 1, 2)), rtol=1e-5
  )
  np.testing.assert_allclose(
    stats["var"], 0.9 * 4.0 + 0.1 * wide.var((0, 1, 2)), rtol=1e-5
  )


def test_evaluation_uses_the_running_statistics():
  x, scale, bias = _inputs()
  variables = _variables(scale, bias, mean=1.0, var=4.0)
  y = BatchNorm().apply(variables, jnp.asarray(x), train=False)
  want = (x - 1.0) / np.sqrt(4.0 + 1e-5) * scale + bias
  np.testing.assert_allclose(y, want, atol=1e-5)


def test_frozen_stays_frozen_however_it_is_built():
  x, scale, bias = _inputs()
  variables = _variables(scale, bias, mean=1.0, var=4.0)
  evaluated = BatchNorm().apply(variables, jnp.asarray(x), train=False)
  for norm in (
    BatchNorm(frozen=True),
    functools.partial(functools.partial(BatchNorm, frozen=True), epsilon=1e-5)(
      name="norm"
    ),
  ):
    y, state = norm.apply(
      variables, jnp.asarray(x), train=True, mutable="batch_stats"
    )
    np.testing.assert_array_equal(y, evaluated)
    jax.tree.map(
      np.testing.assert_array_equal,
      state["batch_stats"],
      variables["batch_stats"],
    )


def test_one_value_a_channel_is_refused_in_training():
  x = jnp.ones((1, 1, 1, 3))
  norm = BatchNorm()
  variables = norm.init(jax.random.key(0), x, train=True)
  norm.apply(variables, x, train=False)
  BatchNorm(frozen=True).apply(variables, x, train=True)
  with pytest.raises(UserError, match="train.batch_size"):
    norm.apply(variables, x, train=True, mutable=["batch_stats"])
  # Eight devices with one value each have eight values in all.
  mapped = BatchNorm(axis_name="batch")
  jax.pmap(
    lambda x: mapped.apply(variables, x, train=True, mutable=["batch_stats"]),
    axis_name="batch",
  )(jnp.ones((8, 1, 1, 1, 3)))


def test_frozen_scale_and_bias_still_have_gradients():
  x, scale, bias = _inputs()
  variables = _variables(scale, bias)

  def loss(params):
    y = BatchNorm(frozen=True).apply(
      {**variables, "params": params}, jnp.asarray(x), train=True
    )
    return (y**2).sum()

  grads = jax.grad(loss)(variables["params"])
  assert all((abs(g) > 0).all() for g in jax.tree.leaves(grads))


def test_variance_survives_a_large_mean():
  """E[x^2] - E[x]^2 in float32 would lose this variance altogether."""
  rng = np.random.default_rng(0)
  x = (4096 + rng.standard_normal(SHAPE)).astype(np.float32)
  variables = _variables(np.ones(SHAPE[-1]), np.zeros(SHAPE[-1]))
  y, _ = BatchNorm().apply(
    variables, jnp.asarray(x), train=True, mutable="batch_stats"
  )
  wide = x.astype(np.float64)
  want = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
  np.testing.assert_allclose(y, want, atol=5e-3)


def test_statistics_stay_float32_under_bfloat16():
  x = jnp.asarray(_inputs()[0], jnp.bfloat16)
  norm = BatchNorm(dtype=jnp.bfloat16)
  variables = norm.init(jax.random.key(0), x, train=False)
  y, state = norm.apply(variables, x, train=True, mutable="batch_stats")
  assert y.dtype == jnp.bfloat16
  leaves = jax.tree.leaves([variables, state])
  assert {a.dtype for a in leaves} == {jnp.dtype("float32")}


def test_group_norm_normalises_each_example_by_itself():
  x, scale, bias = _inputs()
  params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
  norm = GroupNorm(groups=2)
  y = norm.apply({"params": params}, jnp.asarray(x), train=True)
  groups = x.astype(np.float64).reshape(3, 4, 5, 2, 3)
  mean = groups.mean((1, 2, 4), keepdims=True)
  var = groups.var((1, 2, 4), keepdims=True)
  want = ((groups - mean) / np.sqrt(var + 1e-5)).reshape(SHAPE) * scale + bias
  np.testing.assert_allclose(y, want, atol=1e-5)
  np.testing.assert_array_equal(
    y, norm.apply({"params": params}, jnp.asarray(x), train=False)
  )


@pytest.mark.parametrize(
  "channels, groups, expected",
  [
    # The paper's 32 where it fits, else the largest divisor.
    (64, 32, 32), (256, 32, 32), (2048, 32, 32), (48, 32, 24), (16, 32, 8),
    (144, 32, 24), (96, 32, 32), (728, 32, 28), (2048, 8, 8),
    # A prime number is one group; so is a single channel.
    (37, 32, 1), (2, 32, 1), (1, 32, 1), (64, 1, 1),
  ],
)  # fmt: skip
def test_groups_divide_the_channels(channels, groups, expected):
  assert group_count(channels, groups) == expected


def test_group_norm_of_a_pixel_is_not_zero():
  """The image pooled to one pixel, as in ASPP, keeps its differences."""
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 1, 1, 16)))
  y, variables = GroupNorm().init_with_output(jax.random.key(0), x, train=True)
  assert (abs(y) > 0.1).mean() > 0.8
  assert set(variables["params"]) == {"scale", "bias"}


def test_no_norm_is_the_identity_without_parameters():
  x = jnp.asarray(_inputs()[0])
  y, variables = NoNorm().init_with_output(jax.random.key(0), x, train=True)
  assert not variables
  np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", NORMS)
def test_train_has_no_default(name):
  with pytest.raises(TypeError, match="train"):
    NORMS[name]().init(jax.random.key(0), jnp.zeros(SHAPE))


@pytest.mark.torch
def test_batch_norm_equals_torch_but_for_the_unbiased_variance():
  torch = pytest.importorskip("torch")
  x, scale, bias = _inputs()
  theirs = torch.nn.BatchNorm2d(SHAPE[-1])
  with torch.no_grad():
    theirs.weight.copy_(torch.from_numpy(scale))
    theirs.bias.copy_(torch.from_numpy(bias))
  variables = _variables(scale, bias)
  for step in range(3):
    x, _, _ = _inputs(seed=step)
    t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    theirs.zero_grad()
    want = theirs(t)
    (want**3).sum().backward()

    def apply(params, x, stats=variables["batch_stats"]):
      return BatchNorm().apply(
        {"params": params, "batch_stats": stats},
        x,
        train=True,
        mutable="batch_stats",
      )

    got, back, state = jax.vjp(
      apply, variables["params"], jnp.asarray(x), has_aux=True
    )
    variables = {**variables, **state}
    np.testing.assert_allclose(
      got, want.detach().numpy().transpose(0, 2, 3, 1), atol=1e-5
    )
    dparams, dx = back(3 * got**2)
    for a, b in (
      (dparams["scale"], theirs.weight.grad),
      (dparams["bias"], theirs.bias.grad),
      (dx, t.grad.permute(0, 2, 3, 1)),
    ):
      np.testing.assert_allclose(a, b.numpy(), rtol=1e-3, atol=1e-2)
  stats = variables["batch_stats"]
  np.testing.assert_allclose(
    stats["mean"], theirs.running_mean.numpy(), rtol=1e-5
  )
  # Both started at 1 and kept 0.9 of the previous value in three steps.
  share = (theirs.running_var.numpy() - 0.9**3) * (COUNT - 1) / COUNT
  np.testing.assert_allclose(stats["var"] - 0.9**3, share, rtol=1e-4)


@pytest.mark.torch
def test_group_norm_equals_torch():
  torch = pytest.importorskip("torch")
  x, scale, bias = _inputs()
  want = torch.nn.functional.group_norm(
    torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
    3,
    torch.from_numpy(scale),
    torch.from_numpy(bias),
  )
  got = GroupNorm(groups=3).apply(
    {"params": {"scale": scale, "bias": bias}}, jnp.asarray(x), train=False
  )
  np.testing.assert_allclose(got, want.numpy().transpose(0, 2, 3, 1), atol=1e-5)
