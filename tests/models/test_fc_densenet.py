"""FC-DenseNet: published counts, stacks and sizes; statistics; torch parity."""

import functools

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import network_shapes, total_size
from jaxseg.errors import UserError
from jaxseg.layers.norm import BatchNorm
from jaxseg.models.fc_densenet import BatchStatisticsNorm
from random_variables import he_normed
import torch_parity

# The authors' code with 11 classes: values of `_counts`, number of convolutions
# (as in the name), features of the skips, and of the stack after each block
# from the bottom up. Those of 103 are the repository's correction of Table 2,
# the others follow by arithmetic.
PAPER = {
  "fc_densenet56": (
    (1_353_840, 1_375_008, 1_376_795, 1_397_963),
    56,
    (96, 144, 192, 240, 288),
    (336, 384, 336, 288, 240, 192),
  ),
  "fc_densenet67": (
    (3_420_784, 3_460_464, 3_463_243, 3_502_923),
    67,
    (128, 208, 288, 368, 448),
    (528, 608, 528, 448, 368, 288),
  ),
  "fc_densenet103": (
    (9_214_992, 9_318_064, 9_322_091, 9_425_163),
    103,
    (112, 192, 304, 464, 656),
    (896, 1088, 816, 576, 384, 256),
  ),
}
NARROW = dict(down_layers=(1,), bottleneck_layers=1, growth=3, stem_features=4)
DEEPER = dict(down_layers=(2, 1), bottleneck_layers=2)


def _shapes(name, size, capture=False, **fields):
  model = models.create(name, num_classes=11, **fields)
  return network_shapes(model, size, capture_intermediates=capture)


def _counts(variables) -> tuple[int, int, int, int]:
  """Returns the numbers of kernel entries, parameters and variables.

  In order: kernels; parameters without the biases of convolutions; parameters;
  all variables. The authors print the last, which includes the norms'
  statistics.
  """
  flat = traverse_util.flatten_dict(variables["params"])
  kernels = {path: v for path, v in flat.items() if path[-1] == "kernel"}
  without = {
    path: v
    for path, v in flat.items()
    if (*path[:-1], "kernel") not in flat or path in kernels
  }
  return tuple(map(total_size, (kernels, without, flat, variables)))


@pytest.mark.parametrize("name", PAPER)
def test_published_counts_and_stacks(name):
  counts, layers, skips, stacks = PAPER[name]
  _, variables = _shapes(name, (32, 32))
  params = variables["params"]
  assert _counts(variables) == counts
  flat = traverse_util.flatten_dict(params)
  assert sum(path[-1] == "kernel" for path in flat) == layers
  # A transition reads the stack. The last layer of a block reads the stack
  # without its own features.
  read = [
    params[f"transition_down{i}"]["conv"]["kernel"].shape[2]
    for i in range(1, 6)
  ]
  assert tuple(read) == skips
  seen = []
  for block in ("bottleneck", "up5", "up4", "up3", "up2", "up1"):
    last = params[block][f"layer{len(params[block])}"]["conv"]["kernel"]
    seen.append(last.shape[2] + last.shape[3])
  assert tuple(seen) == stacks


def test_sizes_on_camvid():
  fields = dict(down_layers=(1,) * 5, bottleneck_layers=1)
  outputs, variables = _shapes("fc_densenet56", (360, 480), True, **fields)
  assert outputs["logits"].shape == (1, 360, 480, 11)
  maps = {
    key: value["__call__"][0].shape[1:3]
    for key, value in variables["intermediates"].items()
    if key != "__call__"
  }
  rows = [maps[f"transition_up{i}"][0] for i in (5, 4, 3, 2, 1)]
  assert rows == [23, 45, 91, 181, 361]
  assert maps["bottleneck"] == (11, 15)


def test_too_small_an_image_is_refused():
  with pytest.raises(UserError, match="31x64.*32 pixels or more"):
    _shapes("fc_densenet56", (31, 64))
  with pytest.raises(UserError, match="running"):
    _shapes("fc_densenet56", (32, 32), batch_statistics="runing")


def _network(**fields):
  """Returns a narrow network, random variables, and two odd-sized images."""
  model = models.create("fc_densenet56", num_classes=4, **{**NARROW, **fields})
  rng = np.random.default_rng(0)
  image = rng.standard_normal((3, 13, 18, 3)).astype(np.float32)
  _, shapes = network_shapes(model, image.shape[1:3])
  return model, he_normed(shapes, rng, bias=0.3), jnp.asarray(image)


def _logits(model, variables, image, **kwargs):
  run = jax.jit(functools.partial(model.apply, train=False, **kwargs))
  return np.asarray(run(variables, image)["logits"])


def test_evaluation_equals_training_without_dropout():
  """Without dropout both compute the same, and evaluation updates nothing."""
  model, variables, image = _network(dropout_rate=0.0)
  outputs, _ = jax.jit(
    functools.partial(model.apply, train=True, mutable=["batch_stats"])
  )(variables, image)
  got = _logits(model, variables, image)
  np.testing.assert_allclose(got, outputs["logits"], atol=1e-4)
  shifted = jax.tree.map(lambda a: a + 1, variables["batch_stats"])
  other = {**variables, "batch_stats": shifted}
  np.testing.assert_array_equal(got, _logits(model, other, image))


def test_statistics_by_field():
  batch, variables, image = _network()
  by_image = batch.clone(batch_statistics="image")
  together = _logits(by_image, variables, image)
  alone = _logits(batch, variables, image[:1])
  np.testing.assert_allclose(together[:1], alone, atol=1e-5)
  assert np.abs(_logits(batch, variables, image) - together).max() > 1e-2
  running = batch.clone(batch_statistics="running")
  alone = _logits(running, variables, image[:1])
  shifted = jax.tree.map(lambda a: a + 1, variables["batch_stats"])
  other = {**variables, "batch_stats": shifted}
  assert np.abs(_logits(running, other, image[:1]) - alone).max() > 1e-2


def test_a_frozen_norm_has_the_running_statistics_throughout():
  """Training and evaluation are the same for each of the fields."""
  model, variables, image = _network(
    dropout_rate=0.0, norm=dict(name="batch", frozen=True)
  )

  def in_training(variables):
    run = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    outputs, updated = jax.jit(run)(variables, image)
    jax.tree.map(
      np.testing.assert_array_equal,
      updated.get("batch_stats", variables["batch_stats"]),
      variables["batch_stats"],
    )
    return np.asarray(outputs["logits"])

  trained = in_training(variables)
  np.testing.assert_allclose(
    _logits(model, variables, image), trained, atol=1e-5
  )
  shifted = jax.tree.map(lambda a: a + 1, variables["batch_stats"])
  other = {**variables, "batch_stats": shifted}
  assert np.abs(in_training(other) - trained).max() > 1e-2
  np.testing.assert_allclose(
    _logits(model, other, image), in_training(other), atol=1e-5
  )
  # The other images do not matter either.
  np.testing.assert_allclose(
    _logits(model, variables, image[:1]), trained[:1], atol=1e-5
  )


def test_statistics_do_not_change_the_variables():
  trees = [
    _shapes("fc_densenet56", (16, 16), batch_statistics=s, **NARROW)[1]
    for s in ("batch", "image", "running")
  ]
  assert trees[0] == trees[1] == trees[2]
  # Other norms are not replaced.
  _, variables = _shapes(
    "fc_densenet56", (16, 16), norm=dict(name="none"), **NARROW
  )
  assert "batch_stats" not in variables


def test_the_norm_is_batch_norm_over_mapped_devices():
  """Two devices with half of the batch each normalise by the whole batch."""
  x = jax.random.normal(jax.random.key(0), (4, 5, 6, 3))
  norm = BatchStatisticsNorm(epsilon=1e-4)
  variables = norm.init(jax.random.key(1), x, train=False)
  want, _ = BatchNorm(epsilon=1e-4).apply(
    variables, x, train=True, mutable=["batch_stats"]
  )
  np.testing.assert_allclose(
    norm.apply(variables, x, train=False), want, atol=1e-5
  )
  mapped = BatchStatisticsNorm(epsilon=1e-4, axis_name="i")
  halves = jax.jit(
    jax.vmap(
      functools.partial(mapped.apply, variables, train=False), axis_name="i"
    )
  )(x.reshape(2, 2, 5, 6, 3))
  np.testing.assert_allclose(halves.reshape(x.shape), want, atol=1e-5)


def _torch_fc_densenet(flat, x, model):
  """Applies the network as the paper describes it, channels first."""
  torch = pytest.importorskip("torch")
  f = torch.nn.functional

  def kernel(name, transposed=False):
    order = (2, 3, 0, 1) if transposed else (3, 2, 0, 1)
    return flat[f"{name}/kernel"].permute(*order), flat[f"{name}/bias"]

  def layer(x, name):
    x = f.batch_norm(
      x,
      None,
      None,
      flat[f"{name}/norm/scale"],
      flat[f"{name}/norm/bias"],
      training=True,
      eps=1e-4,
    ).relu()
    weight, bias = kernel(f"{name}/conv")
    return f.conv2d(x, weight, bias, padding=weight.shape[2] // 2)

  def dense(x, name, layers):
    new = []
    for i in range(1, layers + 1):
      new.append(layer(torch.cat([x, *new], 1), f"{name}/layer{i}"))
    return torch.cat(new, 1)

  x = f.conv2d(x, *kernel("stem"), padding=1)
  skips = []
  for i, layers in enumerate(model.down_layers, start=1):
    x = torch.cat([x, dense(x, f"down{i}", layers)], 1)
    skips.append(x)
    x = f.max_pool2d(layer(x, f"transition_down{i}"), 2)
  new = dense(x, "bottleneck", model.bottleneck_layers)
  for i in range(len(skips), 0, -1):
    skip = skips.pop()
    weight, bias = kernel(f"transition_up{i}", transposed=True)
    x = f.conv_transpose2d(new, weight, bias, stride=2)
    top, left = ((x.shape[a] - skip.shape[a]) // 2 for a in (2, 3))
    x = x[:, :, top : top + skip.shape[2], left : left + skip.shape[3]]
    x = torch.cat([x, skip], 1)
    new = dense(x, f"up{i}", model.down_layers[i - 1])
  return f.conv2d(torch.cat([x, new], 1), *kernel("classifier"))


@pytest.mark.torch
def test_logits_and_gradients_equal_torchs():
  """The gradient of a bias before nothing but norms is zero."""
  model, variables, image = _network(**DEEPER)
  original = functools.partial(_torch_fc_densenet, model=model)
  torch_parity.assert_equal(
    original, model, variables, image, train=False, floor=1e-3
  )
