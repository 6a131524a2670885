"""How well a network memorises one batch."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Overfit(NamedTuple):
  """The result of `overfit`.

  Attributes:
    score: Last score.
    steps: Number of steps that were taken.
    state: State after the last step.
  """

  score: float
  steps: int
  state: Any


def overfit(
  train_step: Callable[[Any, Any], tuple[Any, Any]],
  score: Callable[[Any], Any],
  state: Any,
  batch: Any,
  *,
  steps: int,
  score_every: int = 40,
  stop_at: float = float("inf"),
) -> Overfit:
  """Trains on one batch again and again, and scores the result.

  A network whose gradients, skips or sizes are wrong does not memorise a
  handful of images. Augmentation, dropout and averaged weights work against
  it and should be off.

  Args:
    train_step: Function from (state, batch) to (state, metrics), for example
      `jaxseg.training.step.train_step` with its keyword arguments bound and
      compiled with `jax.jit`.
    score: Function from the state to a number; greater is better.
    state: State before the first step.
    batch: Batch of every step.
    steps: Largest number of steps.
    score_every: Number of steps between two scores.
    stop_at: Score at which training stops early.

  Returns:
    The last score, the number of steps taken, and the state.
  """
  taken, last = 0, float(score(state))
  while taken < steps and last < stop_at:
    for _ in range(min(score_every, steps - taken)):
      state, _ = train_step(state, batch)
      taken += 1
    last = float(score(state))
  return Overfit(last, taken, state)
