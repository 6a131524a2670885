"""Optimizers and schedules from the configuration, in optax's words.

The order of the chain is what makes decay coupled or decoupled:

  clip -> [coupled decay] -> momentum or moments -> [decoupled decay]
       -> multipliers by path -> learning rate

Coupled decay is added to the gradient before the momentum (torch.optim.SGD,
TensorFlow's L2 losses); decoupled decay after it (Loshchilov & Hutter 2019,
arXiv:1711.05101). Multipliers come last, so that 0 freezes a parameter
altogether and 10 speeds up its decay as well, as Caffe's lr_mult does.
"""

from collections.abc import Sequence
import re
from typing import Any

import flax.traverse_util
import jax
from ml_collections import ConfigDict
import optax

from jaxseg.errors import UserError, unknown_name


def schedule(config: ConfigDict, *, peak: float, steps: int) -> optax.Schedule:
  """The learning rate by step: linear warm-up from 0, then the named decay.

  With t in [0, 1] the share of the steps after the warm-up, and e the
  `end_factor`:
    poly: peak ((1 - t)^power (1 - e) + e)  (Caffe; DeepLab, PSPNet)
    cosine: peak ((1 + cos(pi t)) / 2 (1 - e) + e)
    step: peak * step_factor^(number of step_fractions passed)
    exponential: peak * decay_rate^(number of decay_steps passed)
    constant: peak
  """
  warmup = config.warmup_steps
  span = max(steps - warmup, 1)
  if config.name == "poly":
    decay = optax.polynomial_schedule(
      peak, peak * config.end_factor, config.power, span
    )
  elif config.name == "cosine":
    decay = optax.cosine_decay_schedule(peak, span, config.end_factor)
  elif config.name == "step":
    decay = optax.piecewise_constant_schedule(
      peak,
      {
        round(f * steps) - warmup: config.step_factor
        for f in config.step_fractions
      },
    )
  elif config.name == "exponential":
    decay = optax.exponential_decay(
      peak, config.decay_steps, config.decay_rate, staircase=True
    )
  elif config.name == "constant":
    decay = optax.constant_schedule(peak)
  else:
    known = ("poly", "cosine", "step", "exponential", "constant")
    raise unknown_name("schedule.name", config.name, known)
  if not warmup:
    return decay
  return optax.join_schedules(
    [optax.linear_schedule(0.0, peak, warmup), decay], [warmup]
  )


def create(
  config: ConfigDict, learning_rate: optax.Schedule, params: Any
) -> optax.GradientTransformation:
  """Builds the chain above for parameters of the shape of `params`.

  Args:
    config: the `optimizer` part of the configuration.
    learning_rate: from `schedule`.
    params: arrays or their shapes; only paths are read.

  Raises:
    UserError: an unknown name, or a pattern that matches no parameter.
  """
  decay = []
  if config.weight_decay:
    mask = decay_mask(params, config.no_decay)
    decay = [optax.add_decayed_weights(config.weight_decay, mask)]
  decoupled = config.decoupled or config.name == "adamw"
  chain = [
    *([optax.clip_by_global_norm(config.clip_norm)] * bool(config.clip_norm)),
    *([] if decoupled else decay),
    *_moments(config),
    *(decay if decoupled else []),
  ]
  if config.multipliers:
    factors = multiplier_tree(params, config.multipliers)
    chain.append(_scale_each(factors))
  chain.append(optax.scale_by_learning_rate(learning_rate))
  transform = optax.chain(*chain)
  if config.accumulate > 1:
    transform = optax.MultiSteps(
      transform, config.accumulate
    ).gradient_transformation()
  return transform


def _moments(config: ConfigDict) -> list[optax.GradientTransformation]:
  if config.name == "sgd":
    return [optax.trace(config.momentum, config.nesterov)]
  if config.name == "adamw":
    return [optax.scale_by_adam(config.b1, config.b2, config.epsilon)]
  if config.name == "rmsprop":
    momentum = [optax.trace(config.momentum)] * bool(config.momentum)
    return [optax.scale_by_rms(config.decay_rate, config.epsilon), *momentum]
  raise unknown_name("optimizer.name", config.name, ("sgd", "adamw", "rmsprop"))


def paths(params: Any) -> dict[str, Any]:
  """Parameters by path, "backbone/stem/conv/kernel"."""
  return flax.traverse_util.flatten_dict(params, sep="/")


def decay_mask(params: Any, no_decay: Sequence[str]) -> Any:
  """True where weight decay applies: no pattern of `no_decay` matches."""
  _check_patterns("optimizer.no_decay", no_decay, params)
  return _by_path(
    params, lambda path: not any(re.search(p, path) for p in no_decay)
  )


def multiplier_tree(
  params: Any, multipliers: Sequence[tuple[str, float]]
) -> Any:
  """Each parameter's factor: that of the first pattern that matches, or 1."""
  _check_patterns("optimizer.multipliers", [p for p, _ in multipliers], params)
  return _by_path(
    params,
    lambda path: next(
      (factor for p, factor in multipliers if re.search(p, path)), 1.0
    ),
  )


def _by_path(params: Any, function) -> Any:
  return flax.traverse_util.unflatten_dict(
    {path: function(path) for path in paths(params)}, sep="/"
  )


def _check_patterns(field: str, patterns: Sequence[str], params: Any) -> None:
  known = paths(params)
  for pattern in patterns:
    if not any(re.search(pattern, path) for path in known):
      raise UserError(
        f"{field}: {pattern!r} matches no parameter; paths look like "
        f"{next(iter(known))!r}"
      )


def _scale_each(factors: Any) -> optax.GradientTransformation:
  def update(updates, state, params=None):
    del params
    return jax.tree.map(lambda f, u: f * u, factors, updates), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
