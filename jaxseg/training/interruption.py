"""Lets the current step finish and be saved after Ctrl-C, SIGTERM or SIGHUP.

SIGHUP is what a program receives when its terminal closes, as at the end of an
ssh connection. A single process stops after the current step. Several processes
must stop after the same step: JAX's preemption service tells every process
about a SIGTERM to any of them, and picks a step that none has reached yet.
"""

import os
import signal
import stat

import jax
from jax.experimental import multihost_utils


class Interruption:
  """Stores a request to stop until the training loop reads it.

  Use it as a context manager around the loop. A second Ctrl-C raises
  KeyboardInterrupt at once.

  Attributes:
    signal: Number of the signal that requested the stop, or 0.
  """

  def __init__(self):
    self.signal = 0
    self._is_distributed = jax.process_count() > 1

  def __enter__(self):
    numbers = [signal.SIGINT]
    if not self._is_distributed:
      # With several processes this handler belongs to JAX.
      numbers.append(signal.SIGTERM)
    # `nohup` ignores SIGHUP, and Windows does not have it.
    hangup = getattr(signal, "SIGHUP", None)
    if hangup and signal.getsignal(hangup) != signal.SIG_IGN:
      numbers.append(hangup)
    self._previous = {n: signal.signal(n, self._record) for n in numbers}
    return self

  def __exit__(self, *exception):
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _record(self, number, frame):
    if self.signal and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.signal = number
    if number not in (signal.SIGINT, signal.SIGTERM):
      _discard_output_without_terminal()
    if self._is_distributed:
      # JAX's preemption service reacts to SIGTERM only.
      os.kill(os.getpid(), signal.SIGTERM)

  def should_stop(self, step: int) -> bool:
    """Returns whether to save and stop after `step`.

    Every process must call this method after every step.
    """
    if not self._is_distributed:
      return bool(self.signal)
    stop = multihost_utils.reached_preemption_sync_point(step)
    if stop and not self.signal:
      self.signal = signal.SIGTERM
    return stop


def _discard_output_without_terminal() -> None:
  """Redirects standard output and error if their terminal has closed.

  Every message would be an error there, and the step would not be saved.
  """
  for stream in (1, 2):
    # A closed terminal is a character device that is no terminal any more.
    is_device = stat.S_ISCHR(os.fstat(stream).st_mode)
    if is_device and not os.isatty(stream):
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, stream)
      os.close(nowhere)
