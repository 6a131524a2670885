"""`config.init` replaces fresh variables by those of files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models, weights
from jaxseg.errors import UserError
from jaxseg.weights import network_fields

SMALL = {"name": "resnet18", "width": 4}
CONV7 = {**SMALL, "stem": "conv7", "output_stride": 8}


@pytest.fixture(scope="module")
def network():
  return models.create(
    "pspnet",
    num_classes=3,
    backbone=CONV7,
    bins=(1,),
    head_features=4,
    aux_features=4,
  )


@pytest.fixture(scope="module")
def fresh(network):
  """Draws random variables, which is faster than `init`."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32),
    shapes(network),
  )


def shapes(network):
  image = jnp.zeros((1, 33, 33, 3))
  return jax.eval_shape(
    lambda: network.init(jax.random.key(0), image, train=False)
  )


@pytest.fixture
def converted(classifier, state_dict, tmp_path):
  """Writes the file of a converted classification network."""
  path = tmp_path / "resnet18.npz"
  variables = weights.from_torch(classifier, state_dict)
  weights.save(path, variables, network_fields.describe(classifier))
  return str(path)


@pytest.fixture
def raw(state_dict, tmp_path):
  """Writes the same weights in PyTorch's names."""
  path = tmp_path / "raw.npz"
  np.savez(path, **state_dict)
  return str(path)


def stem(variables):
  return variables["params"]["backbone"]["stem"]["conv"]["kernel"]


@pytest.mark.parametrize("kind", ["classifier", "backbone alone", "raw"])
def test_backbone(
  network, fresh, converted, raw, state_dict, tmp_path, kind, capsys
):
  path = {"classifier": converted, "raw": raw}.get(kind)
  if path is None:
    path = str(tmp_path / "backbone.safetensors")
    whole = weights.load(converted)
    weights.save(path, {name: whole[name]["backbone"] for name in whole})
  variables = weights.initialise(network, fresh, backbone=path)
  assert jax.tree.structure(variables) == jax.tree.structure(dict(fresh))
  np.testing.assert_array_equal(
    stem(variables), state_dict["conv1.weight"].transpose(2, 3, 1, 0)
  )
  np.testing.assert_array_equal(
    variables["batch_stats"]["backbone"]["stem"]["norm"]["var"],
    state_dict["bn1.running_var"],
  )
  for room in ("head", "aux_head", "pyramid"):
    assert_equal(variables["params"][room], fresh["params"][room])
  assert "100 of 100 arrays" in capsys.readouterr().out


def assert_equal(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_model_from_a_file_and_from_a_work_directory(network, fresh, tmp_path):
  other = jax.tree.map(lambda a: a + 1, fresh)
  weights.save(tmp_path / "w.npz", other)
  assert_equal(
    weights.initialise(network, fresh, model=str(tmp_path / "w.npz")), other
  )
  seen = []

  def read_workdir(path):
    seen.append(path)
    return other

  assert_equal(
    weights.initialise(
      network, fresh, model=str(tmp_path), read_workdir=read_workdir
    ),
    other,
  )
  assert seen == [str(tmp_path)]


def test_a_network_that_computes_something_else_is_refused(
  network, fresh, state_dict, converted, tmp_path, capsys
):
  """The fields of a file, and those of the library of a file without any."""
  path = str(tmp_path / "w.safetensors")
  original = network.clone(bins=(2,))
  weights.save(path, fresh, network_fields.describe(original))
  wanted = r"init.model=\S+: .* set '--config.model.bins=\(2,\)', or "
  with pytest.raises(UserError, match=wanted):
    weights.initialise(network, fresh, model=path)
  assert_equal(weights.initialise(original, fresh, model=path), fresh)
  weights.initialise(network, fresh, model=path, changed=("bins",))
  assert "bins=(2,) ((1,) here)" in capsys.readouterr().out
  backbone = network.backbone.clone(ceil_mode=True)
  adapted = network.clone(backbone=backbone)
  raw = str(tmp_path / "raw.npz")
  np.savez(raw, **state_dict)
  for file in (raw, converted):
    weights.initialise(adapted, fresh, backbone=file)
    noted = capsys.readouterr().out.splitlines()[0]
    assert noted.endswith("with backbone.ceil_mode=False (True here)")


def test_another_class_count_with_skip(network, fresh, tmp_path):
  other = jax.tree.map(lambda a: a + 1, fresh)
  for room in ("head", "aux_head"):
    other["params"][room]["classifier"] = {
      "kernel": np.zeros((1, 1, 4, 21)),
      "bias": np.zeros(21),
    }
  path = str(tmp_path / "w.npz")
  weights.save(path, other)
  wanted = r"4 mis-shaped .* --config.init.skip=\"\('classifier',\)\""
  with pytest.raises(UserError, match=wanted):
    weights.initialise(network, fresh, model=path)
  variables = weights.initialise(
    network, fresh, model=path, skip=("head/classifier",)
  )
  assert_equal(
    variables["params"]["head"]["classifier"],
    fresh["params"]["head"]["classifier"],
  )
  np.testing.assert_array_equal(stem(variables), stem(other))


def test_without_files_nothing_changes(network, fresh):
  assert_equal(weights.initialise(network, fresh), dict(fresh))


def test_a_backbone_that_cannot_be_loaded_is_an_error(
  network, fresh, converted, tmp_path
):
  bare = {"params": {"head": {"kernel": jnp.zeros((2, 2))}}}
  other = models.create("pspnet", num_classes=3, backbone={**SMALL})
  for error, module, variables, fields in [
    ("has no backbone", network, bare, {}),
    ("leaves nothing to load", network, fresh, {"skip": ("^backbone/",)}),
    ("no such weight file", network, fresh, {"backbone": "missing.npz"}),
    ("is a directory", network, fresh, {"backbone": str(tmp_path)}),
    # PSPNet's own deep stem has three convolutions, the file one.
    ("--config.model.backbone.stem=conv7", other, shapes(other), {}),
    ("missing", other, shapes(other), {"changed": ("backbone.stem",)}),
    ("did you mean 'bins'", network, fresh, {"changed": ("bin",)}),
  ]:
    with pytest.raises(UserError, match=error):
      weights.initialise(module, variables, **{"backbone": converted, **fields})
