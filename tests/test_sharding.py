"""Processes connect, or report what is wrong; the mesh has one axis."""

import dataclasses
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys

import jax
from jax.sharding import AxisType
import pytest

from jaxseg import sharding
from jaxseg.errors import UserError

ROOT = Path(__file__).parents[1]

# A launcher's variables of one process, as JAX's cluster detection reads them.
SLURM = {
  "SLURM_JOB_ID": "1",
  "SLURM_STEP_NODELIST": "localhost",
  "SLURM_PROCID": "0",
  "SLURM_LOCALID": "0",
}


def python(code, *arguments, **environment):
  """Starts a fresh process, which no launcher started."""
  inherited = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("SLURM_", "OMPI_", "JAX_COORDINATOR", "XLA_"))
  }
  return subprocess.Popen(
    [sys.executable, "-c", code, *map(str, arguments)],
    env={
      **inherited,
      "PYTHONPATH": str(ROOT),
      "JAX_PLATFORMS": "cpu",
      **environment,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.parametrize(
  "environment, processes",
  [
    ({}, "False 1"),
    # An interactive shell: the allocation has tasks, but no step started it.
    (
      {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
      "False 1",
    ),
    # An interactive step: one task, whatever the allocation has.
    ({**SLURM, "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, "False 1"),
    # A step that JAX recognises as a cluster.
    ({**SLURM, "SLURM_NTASKS": "1"}, "True 1"),
  ],
  ids=["laptop", "shell", "interactive step", "slurm"],
)
def test_clusters_are_detected(environment, processes):
  code = (
    "import jax; from jaxseg import sharding; sharding.join_processes(); "
    "print(jax.distributed.is_initialized(), jax.process_count())"
  )
  with socket.socket() as s:
    s.bind(("localhost", 0))
    environment = {
      **environment,
      "JAX_COORDINATOR_PORT": str(s.getsockname()[1]),
    }
  out, err = python(code, **environment).communicate(timeout=60)
  assert out.strip() == processes, err


def test_a_process_that_has_computed_is_alone():
  assert jax.device_count() == 8
  sharding.join_processes()
  assert not jax.distributed.is_initialized()


@pytest.mark.parametrize(
  "arguments, message",
  [
    (("", 2, 0), "--coordinator=: expected HOST:PORT"),
    (("", 0, 1), "--coordinator=: expected HOST:PORT"),
    (("somewhere", 2, 0), "--coordinator=somewhere: expected HOST:PORT"),
    ((":123", 2, 0), "--coordinator=:123: expected HOST:PORT"),
    (("host:0", 2, 0), "--coordinator=host:0: expected HOST:PORT"),
    (("host:70000", 2, 0), "--coordinator=host:70000: expected HOST:PORT"),
    (("host:http", 2, 0), "--coordinator=host:http: expected HOST:PORT"),
    (("host:123", 0, 0), "--num-processes=0: expected the number"),
    (("host:123", 2, -1), "--process-id=-1: expected 0 to 1"),
    (("host:123", 2, 2), "--process-id=2: expected 0 to 1"),
    (("host.invalid:123", 2, 1), "host.invalid:123: unknown host"),
  ],
)
def test_wrong_arguments_are_one_line(arguments, message):
  with pytest.raises(UserError) as error:
    sharding.join_processes(*arguments)
  assert message in str(error.value) and "\n" not in str(error.value)


def test_a_silent_coordinator_is_one_line(monkeypatch):
  monkeypatch.setattr(sharding, "CONNECT_SECONDS", 0)
  with socket.socket() as s:
    s.bind(("localhost", 0))  # Taken, but nobody listens.
    port = s.getsockname()[1]
    with pytest.raises(UserError, match=f"localhost:{port}: no answer"):
      sharding.join_processes(f"localhost:{port}", 2, 1)


def test_an_error_of_jax_is_one_line(monkeypatch):
  def fail(*args):
    raise RuntimeError("UNKNOWN: Failed to start\nRPC server")

  monkeypatch.setattr(jax.distributed, "initialize", fail)
  with pytest.raises(UserError, match="Failed to start RPC server; set"):
    sharding.join_processes("localhost:123", 1, 0)


def test_the_mesh_has_one_axis_over_all_devices():
  mesh = sharding.make_mesh()
  assert mesh.axis_names == ("data",)
  assert mesh.axis_types == (AxisType.Auto,)
  assert mesh.devices.tolist() == jax.devices()
  assert sharding.make_mesh(jax.devices()[3:5]).size == 2


@dataclasses.dataclass(frozen=True)
class Device:
  """A device, with the attribute that `make_mesh` reads."""

  id: int
  process_index: int
  slice_index: int
  platform: str = "tpu"
  device_kind: str = "TPU v4"


def test_devices_are_ordered_by_process(monkeypatch):
  # Two slices of two processes each, which jax.make_mesh refuses.
  devices = [
    Device(id=i, process_index=p, slice_index=p // 2)
    for i, p in enumerate((0, 0, 1, 1, 2, 3, 2, 3))
  ]
  monkeypatch.setattr(jax, "devices", lambda: devices)
  ids = [device.id for device in sharding.make_mesh().devices]
  assert ids == [0, 1, 2, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
  "size, used, sizes",
  [(1, 1, [8]), (2, 2, [8]), (10, 5, [8, 16]), (12, 6, [8, 16]), (13, 1, [16])],
)
def test_a_batch_uses_the_devices_that_divide_it(size, used, sizes, capsys):
  mesh = sharding.mesh_for_training(size)
  assert mesh.devices.tolist() == jax.devices()[:used]
  note = capsys.readouterr().err
  assert f"a batch of {size} is trained on {used} of 8 devices" in note
  for whole in sizes:
    assert f"--config.train.batch_size={whole}" in note


def test_a_batch_of_all_devices_needs_no_note(capsys):
  assert sharding.mesh_for_training(16).size == 8
  assert not capsys.readouterr().err


def test_parts_divide_the_batch_and_the_devices(capsys):
  assert sharding.mesh_for_training(64, 8).size == 8
  with pytest.raises(UserError, match="accumulate=8.*accumulate=6"):
    sharding.mesh_for_training(12, 8)
  assert sharding.mesh_for_training(40, 20).size == 2
  note = capsys.readouterr().err
  assert "a batch of 40 in 20 parts is trained on 2 of 8 devices" in note
  assert "--config.optimizer.accumulate=5 uses all" in note


def test_several_processes_need_a_batch_for_all_devices(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  assert sharding.mesh_for_training(16).size == 8
  with pytest.raises(UserError, match="train.batch_size=10.*=8 or .*=16"):
    sharding.mesh_for_training(10)


def test_evaluation_batches_are_rounded_up():
  assert [sharding.round_up(n, 8) for n in (1, 8, 50)] == [8, 8, 56]
  assert [sharding.round_up(50, n) for n in (1, 3, 5)] == [50, 51, 50]


STEPS = """
import sys, time
from jaxseg import sharding
from jaxseg.training.interruption import Interruption
sharding.join_processes(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
with Interruption() as interruption:
  for step in range(1, 1000):
    # Like a step of training: all processes compute together.
    time.sleep(0.02 if sys.argv[3] == "0" else 0.03)
    if interruption.should_stop(step):
      print(step, interruption.signal)
      break
    if step == 10:
      print("running", flush=True)
"""


@pytest.mark.parametrize(
  "number",
  [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM],
)
def test_all_processes_stop_after_the_same_step(number):
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = s.getsockname()[1]
  first, second = processes = [
    python(STEPS, f"localhost:{port}", 2, i) for i in range(2)
  ]
  for process in processes:
    assert process.stdout.readline() == "running\n", process.stderr.read()
  second.send_signal(number)
  (step, seen), (other_step, other_seen) = (
    process.communicate(timeout=120)[0].split() for process in (first, second)
  )
  assert step == other_step and 10 < int(step) < 900
  # The first process learns that it must stop, not why.
  assert (int(seen), int(other_seen)) == (signal.SIGTERM, number)
