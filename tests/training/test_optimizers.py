"""Schedules against closed forms, optimizers against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg.config import base
from jaxseg.errors import UserError
from jaxseg.training import optimizers


def make_schedule(peak=0.1, steps=100, **fields):
  config = base().schedule
  config.update(fields)
  return optimizers.schedule(config, peak=peak, steps=steps)


def test_poly_is_the_closed_form():
  rate = make_schedule(name="poly", power=0.9)
  for step in (0, 1, 37, 99, 100):
    expected = 0.1 * (1 - step / 100) ** 0.9
    np.testing.assert_allclose(rate(step), expected, rtol=1e-5, atol=1e-8)


def test_poly_with_an_end():
  # mmsegmentation: (base - min) (1 - t)^0.9 + min.
  rate = make_schedule(name="poly", end_factor=0.01)
  expected = (0.1 - 0.001) * (1 - 0.25) ** 0.9 + 0.001
  np.testing.assert_allclose(rate(25), expected, rtol=1e-5)


def test_cosine_is_the_closed_form():
  rate = make_schedule(name="cosine", end_factor=0.1)
  for step in (0, 30, 100):
    cosine = (1 + np.cos(np.pi * step / 100)) / 2
    np.testing.assert_allclose(
      rate(step), 0.1 * (cosine * 0.9 + 0.1), rtol=1e-5
    )


def test_step_multiplies_at_each_fraction():
  rate = make_schedule(name="step", step_fractions=(0.5, 0.75), step_factor=0.1)
  seen = [float(rate(s)) for s in (49, 51, 74, 76)]
  np.testing.assert_allclose(seen, [0.1, 0.01, 0.01, 0.001], rtol=1e-5)


def test_steps_that_coincide_multiply_twice():
  """0.5 and 0.51 of 20 steps are both step 10."""
  rate = make_schedule(name="step", steps=20, step_fractions=(0.5, 0.51))
  np.testing.assert_allclose([rate(9), rate(10)], [0.1, 0.001], rtol=1e-5)


def test_a_step_in_the_warmup_multiplies_from_there_on():
  rate = make_schedule(
    name="step", steps=100, warmup_steps=20, step_fractions=(0.1, 0.5)
  )
  np.testing.assert_allclose(
    [rate(s) for s in (5, 9, 10, 20, 49, 50)],
    [0.025, 0.045, 0.005, 0.01, 0.01, 0.001],
    rtol=1e-5,
  )


def test_exponential_multiplies_after_so_many_steps():
  rate = make_schedule(name="exponential", decay_rate=0.995, decay_steps=10)
  for step in (0, 9, 10, 57, 250):
    expected = 0.1 * 0.995 ** (step // 10)
    np.testing.assert_allclose(rate(step), expected, rtol=1e-5)


def test_warmup_is_linear_then_the_schedule_starts():
  rate = make_schedule(name="poly", warmup_steps=10, steps=110)
  np.testing.assert_allclose(rate(5), 0.05, rtol=1e-6)
  np.testing.assert_allclose(rate(10), 0.1, rtol=1e-6)
  np.testing.assert_allclose(rate(60), 0.1 * 0.5**0.9, rtol=1e-5)


def test_an_unknown_schedule_says_which_exist():
  with pytest.raises(UserError, match="did you mean 'poly'"):
    make_schedule(name="pol")


PARAMS = {
  "backbone": {"conv": {"kernel": jnp.array([1.0, -2.0])}},
  "head": {"conv": {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}},
}


def run(steps=3, rate=0.1, **fields):
  config = base().optimizer
  config.update(fields)
  tx = optimizers.create(config, optax.constant_schedule(rate), PARAMS)
  params, state = PARAMS, tx.init(PARAMS)
  for step in range(steps):
    grads = jax.tree.map(lambda p, s=step: p * 0.5 + s, params)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_sgd_momentum_and_coupled_decay_by_hand():
  new = run(steps=2, momentum=0.9, weight_decay=0.1)
  w, v = 3.0, 0.0
  for step in range(2):
    v = 0.9 * v + (w * 0.5 + step) + 0.1 * w
    w -= 0.1 * v
  np.testing.assert_allclose(new["head"]["conv"]["kernel"], [w], rtol=1e-6)


def test_decoupled_decay_stays_out_of_the_momentum():
  new = run(steps=2, momentum=0.9, weight_decay=0.1, decoupled=True)
  w, v = 3.0, 0.0
  for step in range(2):
    v = 0.9 * v + (w * 0.5 + step)
    w -= 0.1 * (v + 0.1 * w)
  np.testing.assert_allclose(new["head"]["conv"]["kernel"], [w], rtol=1e-6)


def test_adamw_is_optax_adamw():
  tx = optax.adamw(0.1, weight_decay=0.05)
  params, state = PARAMS, tx.init(PARAMS)
  for step in range(3):
    grads = jax.tree.map(lambda p, s=step: p * 0.5 + s, params)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  for a, b in zip(
    jax.tree.leaves(run(name="adamw", weight_decay=0.05)),
    jax.tree.leaves(params),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_rmsprop_by_hand():
  new = run(
    steps=2, name="rmsprop", momentum=0.0, weight_decay=0.0, decay_rate=0.9
  )
  w, nu = 3.0, 0.0
  for step in range(2):
    g = w * 0.5 + step
    nu = 0.9 * nu + 0.1 * g * g
    w -= 0.1 * g / np.sqrt(nu + 1e-8)
  np.testing.assert_allclose(new["head"]["conv"]["kernel"], [w], rtol=1e-5)


def test_multipliers_by_path_scale_the_whole_update():
  plain = run(steps=1)
  new = run(
    steps=1, multipliers=(("bias$", 0.0), ("^head/", 10.0), ("conv", 1.0))
  )
  np.testing.assert_array_equal(new["head"]["conv"]["bias"], [4.0])
  np.testing.assert_allclose(
    new["head"]["conv"]["kernel"] - 3.0,
    10 * (plain["head"]["conv"]["kernel"] - 3.0),
    rtol=1e-6,
  )
  np.testing.assert_array_equal(
    new["backbone"]["conv"]["kernel"], plain["backbone"]["conv"]["kernel"]
  )


def test_no_decay_leaves_the_bias_alone():
  new = run(steps=1, weight_decay=0.1, no_decay=("bias$",))
  # The gradient is 0.5 * 4; decay would add 0.1 * 4.
  np.testing.assert_allclose(new["head"]["conv"]["bias"], [4 - 0.1 * 2])


def test_clipping_bounds_the_global_norm():
  new = run(steps=1, weight_decay=0.0, clip_norm=1e-3, rate=1.0)
  moved = [
    n - p
    for n, p in zip(jax.tree.leaves(new), jax.tree.leaves(PARAMS), strict=True)
  ]
  np.testing.assert_allclose(optax.tree.norm(moved), 1e-3, rtol=1e-3)


def test_a_pattern_that_matches_nothing_is_refused():
  with pytest.raises(UserError, match="matches no parameter"):
    run(multipliers=(("^haed/", 10.0),))


@pytest.mark.torch
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_torch(nesterov):
  torch = pytest.importorskip("torch")
  new = run(steps=3, nesterov=nesterov, weight_decay=0.01)
  w = torch.tensor([3.0], requires_grad=True)
  sgd = torch.optim.SGD(
    [w], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov
  )
  for step in range(3):
    w.grad = w.detach() * 0.5 + step
    sgd.step()
  np.testing.assert_allclose(
    new["head"]["conv"]["kernel"], w.detach().numpy(), rtol=1e-5
  )
