"""The loop of `overfit`, on a step whose result is known."""

from jaxseg.analysis import overfit


def _halve(state, batch):
  """Takes a step that halves the distance to the target."""
  return (state + batch) / 2, {}


def test_all_steps_are_taken_and_scored():
  result = overfit(_halve, float, 0.0, 1.0, steps=5, score_every=2)
  assert result == (1 - 2**-5, 5, 1 - 2**-5)


def test_it_stops_at_the_first_score_that_is_enough():
  """1 - 2^-4 = 0.9375 is the first score of every second step above 0.9."""
  result = overfit(
    _halve, float, 0.0, 1.0, steps=50, score_every=2, stop_at=0.9
  )
  assert result.steps == 4
  assert result.score == 1 - 2**-4


def test_no_step_is_taken_when_the_first_score_is_enough():
  assert overfit(_halve, float, 3.0, 1.0, steps=9, stop_at=2.0) == (3.0, 0, 3.0)
