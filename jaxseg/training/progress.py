"""Shows how far training is, and how long it still takes."""

import time

import jax
from tqdm import tqdm


def report(text: str) -> None:
  """Prints a line above the progress bar, in the first process only."""
  if jax.process_index() == 0:
    tqdm.write(text)


class Progress:
  """A progress bar on a terminal, and lines of text elsewhere.

  Both give the remaining time. Use it as a context manager around the steps.
  """

  def __init__(self, first_step: int, last_step: int):
    """Starts to measure the speed.

    Args:
      first_step: Number of steps that an earlier start of the run took.
      last_step: Number of steps of the whole run.
    """
    self._last_step = last_step
    self._bar = tqdm(
      total=last_step,
      initial=first_step,
      desc="train",
      unit="step",
      # None shows the bar on terminals only.
      disable=None if jax.process_index() == 0 else True,
      dynamic_ncols=True,
    )
    self.restart(first_step)

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self._bar.close()

  def advance(self) -> None:
    """Counts one step."""
    self._bar.update()

  def restart(self, step: int) -> None:
    """Measures the speed from the end of `step` on."""
    self._time, self._step = time.perf_counter(), step

  def log(self, step: int, loss: float) -> float:
    """Shows the loss of a step and the remaining time.

    Returns:
      The number of steps per second since the last call, or since `restart`.
    """
    speed = (step - self._step) / (time.perf_counter() - self._time)
    self.restart(step)
    self._bar.set_postfix(loss=f"{loss:.3f}")
    if self._bar.disable:
      left = tqdm.format_interval((self._last_step - step) / speed)
      report(f"step {step} of {self._last_step}: loss {loss:.4f}, {left} left")
    return speed
