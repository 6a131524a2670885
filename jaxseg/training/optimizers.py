"""Optimizers and learning rate schedules, built from optax.

The transformations are chained in this order:

  clip -> [coupled decay] -> momentum or moments -> [decoupled decay]
       -> multipliers by path -> learning rate

Coupled decay is added to the gradient before the momentum, as in
torch.optim.SGD and TensorFlow's L2 losses. Decoupled decay is added after it
(Loshchilov & Hutter 2019, arXiv:1711.05101). Multipliers come last, as
Caffe's lr_mult does: a multiplier of 0 freezes a parameter completely, one of
10 scales its decay as well.
"""

from collections.abc import Callable, Sequence
import re
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from jaxseg.errors import UserError, unknown_name

SCHEDULES = ("poly", "cosine", "step", "exponential", "constant")
OPTIMIZERS = ("sgd", "adamw", "rmsprop")


def schedule(config: ConfigDict, *, peak: float, steps: int) -> optax.Schedule:
  """Builds a linear warm-up from 0, followed by a named decay.

  Let t in [0, 1] be the fraction of the steps after the warm-up and e the
  `end_factor`. The decays are

    poly: peak ((1 - t)^power (1 - e) + e)  (Caffe; DeepLab, PSPNet)
    cosine: peak ((1 + cos(pi t)) / 2 (1 - e) + e)
    step: peak * step_factor^(number of step_fractions passed)
    exponential: peak * decay_rate^(number of decay_steps passed)
    constant: peak

  Args:
    config: The `schedule` part of the configuration.
    peak: Learning rate at the end of the warm-up.
    steps: Number of steps, warm-up included.

  Returns:
    The learning rate as a function of the step.

  Raises:
    UserError: `schedule.name` is unknown.
  """
  warmup = config.warmup_steps
  rate = _decay(config, peak=peak, span=max(steps - warmup, 1))
  if warmup:
    ramp = optax.linear_schedule(0.0, peak, warmup)
    rate = optax.join_schedules([ramp, rate], [warmup])
  if config.name != "step":
    return rate
  boundaries = np.array([round(f * steps) for f in config.step_fractions])

  def in_steps(step):
    passed = jnp.sum(step >= boundaries)
    return rate(step) * config.step_factor**passed

  return in_steps


def _decay(config: ConfigDict, *, peak: float, span: int) -> optax.Schedule:
  """Builds the schedule of the `span` steps after the warm-up.

  That of "step" is constant here: its fractions count all steps, so one of them
  may lie in the warm-up.
  """
  if config.name == "poly":
    return optax.polynomial_schedule(
      peak, peak * config.end_factor, config.power, span
    )
  if config.name == "cosine":
    return optax.cosine_decay_schedule(peak, span, config.end_factor)
  if config.name == "exponential":
    return optax.exponential_decay(
      peak, config.decay_steps, config.decay_rate, staircase=True
    )
  if config.name in ("step", "constant"):
    return optax.constant_schedule(peak)
  raise unknown_name("schedule.name", config.name, SCHEDULES)


def create(
  config: ConfigDict, learning_rate: optax.Schedule, params: Any
) -> optax.GradientTransformation:
  """Builds the optimizer.

  Args:
    config: The `optimizer` part of the configuration.
    learning_rate: Learning rate by step, from `schedule`.
    params: The parameters or their shapes; only their paths are read.

  Returns:
    The chain of transformations in the order of the module docstring.

  Raises:
    UserError: `optimizer.name` is unknown, or a pattern matches no parameter.
  """
  chain = []
  if config.clip_norm:
    chain.append(optax.clip_by_global_norm(config.clip_norm))
  chain.extend(_moments_and_decay(config, params))
  if config.multipliers:
    chain.append(_scale_by_path(config.multipliers, params))
  chain.append(optax.scale_by_learning_rate(learning_rate))
  return optax.chain(*chain)


def _moments_and_decay(
  config: ConfigDict, params: Any
) -> list[optax.GradientTransformation]:
  """Builds momentum or moments, and the weight decay before or after them."""
  moments = _moments(config)
  if not config.weight_decay:
    return moments
  mask = _decay_mask(params, config.no_decay)
  decay = optax.add_decayed_weights(config.weight_decay, mask)
  if config.decoupled or config.name == "adamw":
    return [*moments, decay]
  return [decay, *moments]


def _moments(config: ConfigDict) -> list[optax.GradientTransformation]:
  """Builds the momentum or the moments of the optimizer."""
  if config.name == "sgd":
    return [optax.trace(config.momentum, config.nesterov)]
  if config.name == "adamw":
    return [optax.scale_by_adam(config.b1, config.b2, config.epsilon)]
  if config.name == "rmsprop":
    moments = [optax.scale_by_rms(config.decay_rate, config.epsilon)]
    if config.momentum:
      moments.append(optax.trace(config.momentum))
    return moments
  raise unknown_name("optimizer.name", config.name, OPTIMIZERS)


def _decay_mask(params: Any, no_decay: Sequence[str]) -> Any:
  """Returns True for each parameter that no pattern of `no_decay` matches."""
  _check_patterns("optimizer.no_decay", no_decay, params)
  return _map_paths(
    lambda path: not any(re.search(p, path) for p in no_decay), params
  )


def _scale_by_path(
  multipliers: Sequence[tuple[str, float]], params: Any
) -> optax.GradientTransformation:
  """Scales each update by the factor of the first pattern that matches."""
  patterns = [pattern for pattern, _ in multipliers]
  _check_patterns("optimizer.multipliers", patterns, params)

  def factor_of(path: str) -> float:
    for pattern, factor in multipliers:
      if re.search(pattern, path):
        return factor
    return 1.0

  factors = _map_paths(factor_of, params)
  return optax.stateless(
    lambda updates, _: jax.tree.map(lambda f, u: f * u, factors, updates)
  )


def _map_paths(function: Callable[[str], Any], params: Any) -> Any:
  """Applies `function` to each path, such as "backbone/stem/conv/kernel"."""
  return flax.traverse_util.path_aware_map(
    lambda path, _: function("/".join(path)), params
  )


def _check_patterns(field: str, patterns: Sequence[str], params: Any) -> None:
  """Checks that each regular expression matches the path of a parameter.

  Raises:
    UserError: A pattern matches no path.
  """
  known = list(flax.traverse_util.flatten_dict(params, sep="/"))
  for pattern in patterns:
    if not any(re.search(pattern, path) for path in known):
      raise UserError(
        f"{field}: {pattern!r} matches no parameter; paths look like "
        f"{known[0]!r}"
      )
