"""The training step: any layout of devices, parts, ignored pixels, averages."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import pytest

from jaxseg import models, sharding
from jaxseg.augment import Augmentation
from jaxseg.losses import HeadsLoss
from jaxseg.tasks.segmentation import Segmentation
from jaxseg.training.state import create_state
from jaxseg.training.step import split_batch, train_step

CLASSES, SIZE, BATCH, IGNORE = 3, 16, 16, 255

TASK = Segmentation(
  class_names=("a", "b", "c"),
  mean=(0.5, 0.4, 0.3),
  std=(0.2, 0.2, 0.2),
  ignore_label=IGNORE,
  augmentation=Augmentation(
    crop=(SIZE, SIZE), scale=(0.7, 1.4), flip=True, brightness=0.3
  ),
  heads_loss=HeadsLoss(
    heads={"logits": 1.0, "aux_logits": 0.4}, class_weights=(1.0, 2.0, 0.5)
  ),
)
STEP = dict(task=TASK, seed=7, ema_decay=0.9)
# In two parts on eight devices, each part has one example of each device. The
# step in two parts takes twice as long to compile.
PARTS = pytest.mark.parametrize(
  "parts", [1, pytest.param(2, marks=pytest.mark.slow)]
)
OPTIMIZER = optax.sgd(0.005, momentum=0.9)


def tiny(axis_name=None) -> nn.Module:
  # No dropout: its mask is drawn per device under pmap and shard_map.
  return models.create(
    "pspnet",
    num_classes=CLASSES,
    backbone={
      "name": "resnet18",
      "width": 4,
      "output_stride": 4,
      "stage_sizes": (1, 1, 1, 1),
    },
    bins=(1, 2),
    head_features=8,
    aux_features=8,
    dropout_rate=0.0,
    norm={"name": "batch", "axis_name": axis_name},
  )


def batch(step=0):
  rng = np.random.default_rng(step)
  # Images differ in their numbers of valid pixels, so that a mean of means
  # would be another number.
  label = rng.integers(0, CLASSES, (BATCH, SIZE, SIZE)).astype(np.uint8)
  for i in range(BATCH):
    label[i, : rng.integers(0, SIZE + 1)] = IGNORE
  return {
    "image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3)).astype(np.uint8),
    "label": label,
    "size": np.full((BATCH, 2), SIZE, np.int32),
    "index": rng.permutation(100)[:BATCH].astype(np.int32),
  }


@functools.cache
def initial():
  key = jax.random.key(0)
  state = create_state(tiny(), OPTIMIZER, key, (1, SIZE, SIZE, 3), ema=True)
  return jax.device_get(state)


def step_fn(axis_name=None, parts=1):
  return functools.partial(
    train_step,
    model=tiny(axis_name),
    optimizer=OPTIMIZER,
    parts=parts,
    **STEP,
    axis_name=axis_name,
  )


def run_jit(devices, parts, steps=3):
  mesh = sharding.make_mesh(jax.devices()[:devices])
  whole = sharding.replicated(mesh)
  step = jax.jit(step_fn(parts=parts), out_shardings=(whole, whole))
  state = jax.device_put(initial(), whole)
  for i in range(steps):
    state, metrics = step(state, sharding.global_batch(batch(i), mesh))
  return jax.device_get((state, metrics))


@functools.cache
def reference(parts):
  return run_jit(1, parts)


def assert_same(a, b, tolerance=1e-5):
  flat_a, flat_b = (
    dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (a, b)
  )
  assert flat_a.keys() == flat_b.keys()
  for path, value in flat_a.items():
    np.testing.assert_allclose(
      value,
      flat_b[path],
      atol=tolerance,
      rtol=tolerance,
      err_msg=jax.tree_util.keystr(path),
    )


@PARTS
def test_eight_devices_equal_one(parts):
  assert_same(run_jit(8, parts), reference(parts))


@PARTS
def test_pmap_equals_jit(parts):
  step = jax.pmap(step_fn("data", parts), axis_name="data")
  state = jax.tree.map(lambda x: jnp.stack([x] * 8), initial())
  for i in range(3):
    split = jax.tree.map(
      lambda x: x.reshape(8, BATCH // 8, *x.shape[1:]), batch(i)
    )
    state, metrics = step(state, split)
  result = jax.tree.map(lambda x: np.asarray(x)[5], (state, metrics))
  assert_same(result, reference(parts))


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_equals_jit(check_vma, parts=2):
  mesh = sharding.make_mesh()
  step = jax.jit(
    jax.shard_map(
      step_fn("data", parts),
      mesh=mesh,
      in_specs=(P(), P("data")),
      out_specs=(P(), P()),
      check_vma=check_vma,
    )
  )
  state = initial()
  for i in range(3):
    state, metrics = step(state, batch(i))
  assert_same(jax.device_get((state, metrics)), reference(parts))


@functools.cache
def compiled_step():
  return jax.jit(step_fn())


def one_step(changed):
  return jax.device_get(compiled_step()(initial(), changed))


def test_labels_outside_the_valid_size_change_nothing():
  """Labels beyond `size` are ignored."""
  plain = {**batch(), "size": np.full((BATCH, 2), SIZE // 2, np.int32)}
  other = {**plain, "label": plain["label"].copy()}
  other["label"][:, SIZE // 2 :] = 1
  assert (other["label"] != plain["label"]).any()
  a, b = one_step(plain), one_step(other)
  assert a[1]["loss"] > 0
  assert_same(a, b, 0)


def test_adding_ignored_images_changes_no_loss_and_no_gradient():
  """Norms are frozen, because batch statistics depend on all images."""
  model = tiny().clone(
    norm=functools.partial(models.NORMS["batch"], frozen=True),
    backbone=tiny().backbone.clone(
      norm=functools.partial(models.NORMS["batch"], frozen=True)
    ),
  )
  step = jax.jit(
    functools.partial(train_step, model=model, optimizer=OPTIMIZER, **STEP)
  )
  full = batch()
  full["label"][8:] = IGNORE
  half = jax.tree.map(lambda x: x[:8], full)
  a, b = (jax.device_get(step(initial(), x)) for x in (full, half))
  assert_same(a[1], b[1], 1e-5)
  assert_same(a[0].params, b[0].params, 1e-6)


def test_an_all_ignored_batch_is_zero_and_finite():
  ignored = {**batch(), "label": np.full((BATCH, SIZE, SIZE), 255, np.uint8)}
  state, metrics = one_step(ignored)
  assert metrics["loss"] == 0
  assert metrics["gradient_norm"] == 0
  assert_same(state.params, initial().params, 0)


def test_the_step_counts_and_averages():
  """The first decays are 1 / 10 and 2 / 11, less than the 0.9 asked for."""
  state, _ = one_step(batch())
  following = jax.device_get(compiled_step()(state, batch(1)))[0]
  assert (state.step, following.step) == (1, 2)

  def variables(state):
    return {"params": state.params, "batch_stats": state.batch_stats}

  expected = variables(initial())
  for after, decay in ((state, 1 / 10), (following, 2 / 11)):
    expected = jax.tree.map(
      lambda old, new, decay=decay: decay * old + (1 - decay) * new,
      expected,
      variables(after),
    )
    assert_same(after.ema, expected, 1e-6)


class Bias(nn.Module):
  """Scores that do not depend on the image."""

  @nn.compact
  def __call__(self, image, *, train):
    bias = self.param("bias", nn.initializers.zeros, (2,))
    return {"logits": jnp.broadcast_to(bias, (*image.shape[:3], 2))}


def test_parts_have_the_weights_of_their_pixels():
  """One valid pixel of class 0 and 999 of class 1 weigh 1 and 999.

  At bias 0 the gradient of the mean over the pixels is p - q, where p is 1 / 2
  and q is the share of the class. A mean of the parts' means would be 0.
  """
  task = Segmentation(
    class_names=("a", "b"),
    mean=(0.5,) * 3,
    std=(1.0,) * 3,
    augmentation=Augmentation(crop=(27, 37)),
  )
  label = np.full((4, 27, 37), 255, np.uint8)
  label[0, 0, 0] = 0
  label[1] = 1
  examples = {
    "image": np.zeros((4, 27, 37, 3), np.uint8),
    "label": label,
    "size": np.tile(np.int32([27, 37]), (4, 1)),
    "index": np.arange(4, dtype=np.int32),
  }
  optimizer = optax.sgd(1.0)
  state = create_state(
    Bias(), optimizer, jax.random.key(0), (1, 27, 37, 3), ema=True
  )
  for parts in (1, 4):
    step = jax.jit(
      functools.partial(
        train_step,
        model=Bias(),
        optimizer=optimizer,
        task=task,
        parts=parts,
        ema_decay=0.9,
      )
    )
    after, metrics = step(state, examples)
    share = 999 / 1000
    np.testing.assert_allclose(
      after.params["bias"], [0.5 - share, share - 0.5], rtol=1e-5
    )
    np.testing.assert_allclose(metrics["loss"], np.log(2), rtol=1e-5)
    # One update decays the average once.
    np.testing.assert_allclose(
      after.ema["params"]["bias"], 0.9 * after.params["bias"], rtol=1e-5
    )


def split(seed=0, step=3, parts=1):
  numbers = {"index": jnp.arange(8)}
  batch, keys, dropout = split_batch(
    numbers, jnp.asarray(step), seed=seed, parts=parts
  )
  return batch["index"], jax.random.key_data(keys), dropout


def test_each_position_of_the_stream_has_a_key_of_its_own():
  """Batch 3 of eight examples holds the positions 24 to 31."""
  _, keys, _ = split()
  _, following, _ = split(step=4)
  found = {tuple(key) for key in np.concatenate([keys[0], following[0]])}
  assert len(found) == 16
  assert not np.array_equal(split(seed=1)[1], keys)
  # The batch size does not change the keys.
  pairs = [
    split_batch({"index": jnp.arange(4)}, jnp.asarray(s), seed=0, parts=1)[1]
    for s in (6, 7)
  ]
  np.testing.assert_array_equal(
    jax.random.key_data(jnp.concatenate(pairs, axis=1)), keys
  )


def test_parts_take_every_nth_example_and_its_key():
  _, keys, _ = split()
  index, in_parts, dropout = split(parts=4)
  np.testing.assert_array_equal(index, [[0, 4], [1, 5], [2, 6], [3, 7]])
  np.testing.assert_array_equal(in_parts, keys[0][index])
  assert len(np.unique(jax.random.key_data(dropout), axis=0)) == 4
