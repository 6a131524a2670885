"""The mesh has one axis, and batches are split over it."""

import dataclasses

import jax
from jax.sharding import AxisType
import pytest

from jaxseg import sharding
from jaxseg.errors import UserError


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
