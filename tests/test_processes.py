"""Processes connect, fail together and stop together."""

import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import types

import jax
from jax._src.clusters import ClusterEnv, cloud_tpu_cluster, k8s_cluster
import pytest

from jaxseg import processes
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
  "environment, expected",
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
def test_clusters_are_detected(environment, expected):
  code = (
    "import jax; from jaxseg import processes; processes.join(); "
    "print(jax.distributed.is_initialized(), jax.process_count())"
  )
  with socket.socket() as s:
    s.bind(("localhost", 0))
    environment = {
      **environment,
      "JAX_COORDINATOR_PORT": str(s.getsockname()[1]),
    }
  out, err = python(code, **environment).communicate(timeout=60)
  assert out.strip() == expected, err


@pytest.fixture
def detected(monkeypatch):
  """Replaces JAX's start; lists (coordinator, count, index) as detected."""
  found = []

  def initialize(coordinator=None, num_processes=None, process_id=None, **_):
    # `jax.distributed.initialize` begins with the same call.
    parameters = ClusterEnv.auto_detect_unset_distributed_params(
      coordinator, num_processes, process_id, None, None, 1
    )
    if parameters[0] is None:
      raise ValueError("coordinator_address should be defined.")
    found.append(parameters[:3])

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.0.0.1")
  return found


def test_a_cloud_tpu_pod_is_detected(detected, monkeypatch):
  monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
  monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # No metadata server.
  for key, value in {
    "TPU_WORKER_HOSTNAMES": "tpu-0,tpu-1",
    "TPU_WORKER_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "slice-0:8080",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
  }.items():
    monkeypatch.setenv(key, value)
  processes.join()
  # The second host of the second of two slices.
  assert detected == [("slice-0:8482", 4, 3)]


def test_a_kubernetes_job_is_detected(detected, monkeypatch):
  def namespace(**fields):
    return types.SimpleNamespace(**fields)

  pod = namespace(
    metadata=namespace(
      labels={"job-name": "train"},
      owner_references=[namespace(controller=True, kind="Job")],
    ),
    spec=namespace(subdomain="jaxpods"),
  )
  job = namespace(
    metadata=namespace(name="train", labels={}), spec=namespace(parallelism=3)
  )
  kubernetes = types.ModuleType("kubernetes")
  kubernetes.config = namespace(load_incluster_config=lambda: None)
  kubernetes.client = namespace(
    CoreV1Api=object,
    BatchV1Api=object,
    exceptions=namespace(ApiException=OSError),
  )
  monkeypatch.setitem(sys.modules, "kubernetes", kubernetes)
  monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
  monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
  cluster = k8s_cluster.K8sCluster
  monkeypatch.setattr(cluster, "_pod", classmethod(lambda cls: pod))
  monkeypatch.setattr(cluster, "_job", classmethod(lambda cls: job))
  processes.join()
  assert detected == [("train-0.jaxpods:55527", 3, 2)]


def test_a_pod_without_the_package_is_alone_and_says_so(
  detected, monkeypatch, capsys
):
  monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
  monkeypatch.setitem(sys.modules, "kubernetes", None)  # Cannot be imported.
  processes.join()
  assert detected == []
  note = capsys.readouterr().err
  assert note.startswith("note: ") and note.count("\n") == 1
  assert "jax[k8s]" in note


def test_a_process_that_has_computed_is_alone():
  assert jax.device_count() == 8
  processes.join()
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
    processes.join(*arguments)
  assert message in str(error.value) and "\n" not in str(error.value)


def test_a_silent_coordinator_is_one_line(monkeypatch):
  monkeypatch.setattr(processes, "CONNECT_SECONDS", 0)
  with socket.socket() as s:
    s.bind(("localhost", 0))  # Taken, but nobody listens.
    port = s.getsockname()[1]
    with pytest.raises(UserError, match=f"localhost:{port}: no answer"):
      processes.join(f"localhost:{port}", 2, 1)


@pytest.mark.slow
def test_a_missing_process_is_one_line():
  code = (
    "import sys; from jaxseg import processes; processes.CONNECT_SECONDS = 2; "
    "processes.join(sys.argv[1], 2, 0)"
  )
  with socket.socket() as s:
    s.bind(("localhost", 0))
    address = f"localhost:{s.getsockname()[1]}"
  process = python(code, address)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 2
  assert err.count("\n") == 1 and "error: not all processes" in err


def test_an_error_of_jax_is_one_line(monkeypatch):
  def fail(*args, **kwargs):
    raise RuntimeError("UNKNOWN: Failed to start\nRPC server")

  monkeypatch.setattr(jax.distributed, "initialize", fail)
  with pytest.raises(UserError, match="Failed to start RPC server; set"):
    processes.join("localhost:123", 1, 0)


FAIL = """
import os, sys, time
from jaxseg import peers, processes
from jaxseg.errors import UserError
peers.SILENT_SECONDS = 3
address, index, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with processes.joined(address, 2, index):
  print("message", flush=True)
  print("note", file=sys.stderr, flush=True)
  if how == f"mistake {index}":
    raise UserError("bad data")
  if how == f"bug {index}":
    raise ValueError("a bug")
  if how == f"Ctrl-C {index}":
    raise KeyboardInterrupt
  if how == f"kill {index}":
    time.sleep(2)
    os.kill(os.getpid(), 9)
  if how == "success":
    time.sleep(index)
    sys.exit(143)
  time.sleep(100)
"""


def run_pair(code, *arguments):
  """Runs two processes; returns [(status, stdout, stderr), ...]."""
  with socket.socket() as s:
    s.bind(("localhost", 0))
    address = f"localhost:{s.getsockname()[1]}"
  pair = [python(code, address, i, *arguments) for i in range(2)]
  outputs = [process.communicate(timeout=60) for process in pair]
  return [
    (process.returncode, *output)
    for process, output in zip(pair, outputs, strict=True)
  ]


@pytest.mark.parametrize(
  "how, status, line",
  [
    ("mistake 0", 2, "bad data"),
    ("mistake 1", 2, "bad data"),
    ("bug 0", 1, "ValueError: a bug"),
    ("bug 1", 1, "ValueError: a bug"),
    ("Ctrl-C 1", 130, "interrupted"),
    ("kill 1", 1, "it has not reported for 3 s"),
  ],
)
@pytest.mark.slow
def test_processes_fail_together_with_one_reason(how, status, line):
  failing = int(how[-1])
  for index, (seen, _, err) in enumerate(run_pair(FAIL, how)):
    if how.startswith("kill") and index == failing:
      assert seen == -signal.SIGKILL
      continue
    assert seen == status, err
    errors = [e for e in err.splitlines() if e.startswith("error: ")]
    assert len(errors) == 1, err
    host = socket.gethostname()
    assert errors[0].startswith(f"error: process {failing} ({host}): {line}")
    # The traceback of a bug is printed where it happened.
    is_bug = how == f"bug {index}"
    assert ("Traceback" in err) == is_bug, err
    assert "coordination_service" not in err


def test_processes_succeed_together_and_the_first_prints():
  (status, out, err), (other, other_out, other_err) = run_pair(FAIL, "success")
  assert status == other == 143, err + other_err
  assert (out, other_out) == ("message\n", "")
  assert err == "note\n"
  assert other_err == "process 1 of 2; process 0 prints the messages\n"


STEPS = """
import sys, time
from jaxseg import processes
from jaxseg.training.interruption import Interruption
processes.join(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
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
  [
    pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    signal.SIGTERM,
  ],
)
def test_all_processes_stop_after_the_same_step(number):
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = s.getsockname()[1]
  first, second = both = [
    python(STEPS, f"localhost:{port}", 2, i) for i in range(2)
  ]
  for process in both:
    assert process.stdout.readline() == "running\n", process.stderr.read()
  second.send_signal(number)
  (step, seen), (other_step, other_seen) = (
    process.communicate(timeout=120)[0].split() for process in (first, second)
  )
  assert step == other_step and 10 < int(step) < 900
  # The first process learns that it must stop, not why.
  assert (int(seen), int(other_seen)) == (signal.SIGTERM, number)
