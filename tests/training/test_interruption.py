"""Training stops after the current step when its terminal closes."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time

LOOP = """
import itertools, sys, time
from jaxseg.training.interruption import Interruption
with Interruption() as interruption:
  for step in itertools.count():
    print("step", flush=True)
    print("step", file=sys.stderr, flush=True)
    if interruption.should_stop(step):
      break
    time.sleep(0.01)
print("saved", flush=True)
open(sys.argv[1], "w").write(str(interruption.signal))
"""


def test_a_closed_terminal_stops_the_run(tmp_path):
  terminal, end = os.openpty()
  process = subprocess.Popen(
    [sys.executable, "-c", LOOP, str(tmp_path / "saved")],
    stdin=end,
    stdout=end,
    stderr=end,
    start_new_session=True,
    preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
  )
  os.close(end)
  assert os.read(terminal, 4) == b"step"
  time.sleep(0.1)
  os.close(terminal)
  assert process.wait(timeout=60) == 0
  assert (tmp_path / "saved").read_text() == str(signal.SIGHUP.value)


def test_nohup_ignores_a_closed_terminal(tmp_path):
  code = LOOP.replace("(step)", "(step) or step == 50")
  process = subprocess.Popen(
    ["nohup", sys.executable, "-c", code, str(tmp_path / "saved")],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "step\n"
  process.send_signal(signal.SIGHUP)
  process.communicate(timeout=60)
  assert (tmp_path / "saved").read_text() == "0"
