"""Ctrl-C and SIGTERM: finish the step, save, then stop."""

import signal

import jax
from jax.experimental import multihost_utils
import numpy as np


class Interruption:
  """Remembers a request to stop, for the loop to answer between two steps.

  A second Ctrl-C stops at once.
  """

  SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.signal = 0

  def __enter__(self):
    self._previous = {s: signal.signal(s, self._note) for s in self.SIGNALS}
    return self

  def __exit__(self, *exception):
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _note(self, number, frame):
    if self.signal and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.signal = number

  def agreed(self, step: int, every: int) -> bool:
    """Whether to stop after `step`.

    Several processes must stop at the same step, so they ask each other at
    every `every`-th step; a single process answers at once.
    """
    if jax.process_count() == 1:
      return bool(self.signal)
    if step % every:
      return False
    signals = multihost_utils.process_allgather(np.int32(self.signal))
    self.signal = int(np.max(signals))
    return bool(self.signal)
