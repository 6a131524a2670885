"""Recomputed batch statistics are the means that NumPy computes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import sharding
from jaxseg.augment import Augmentation
from jaxseg.layers.norm import BatchNorm
from jaxseg.tasks.segmentation import Segmentation
from jaxseg.training.batch_stats import make_recompute_batch_stats
from jaxseg.training.state import TrainState

PLAIN = Segmentation(
  class_names=("a", "b"),
  mean=(0.5, 0.5, 0.5),
  std=(0.25, 0.25, 0.25),
  augmentation=Augmentation(crop=(4, 6)),
)


class Norms(nn.Module):
  """Norms of two momenta, one of which is applied twice."""

  frozen: bool = False

  @nn.compact
  def __call__(self, image, *, train):
    fast = BatchNorm(momentum=0.5, frozen=self.frozen, name="fast")
    slow = BatchNorm(momentum=0.99, frozen=self.frozen, name="slow")
    x = fast(image, train=train) + fast(image, train=train)
    return {"logits": x + slow(image, train=train)}


def recomputed(model, batches, *, parts=1, task=PLAIN, ema=False):
  image = jnp.zeros((1, 4, 6, 3))
  variables = model.init(jax.random.key(0), image, train=False)
  variables["batch_stats"] = jax.tree.map(
    lambda a: a + 3, variables["batch_stats"]
  )
  state = TrainState(
    step=jnp.asarray(7, jnp.int32),
    **variables,
    opt_state=(),
    ema=jax.tree.map(jnp.copy, variables) if ema else None,
  )
  recompute = make_recompute_batch_stats(
    model,
    task,
    seed=0,
    parts=parts,
    count=len(batches),
    mesh=sharding.make_mesh(jax.devices()[:1]),
  )
  return state, recompute(state, iter(batches))


def random_batches(count: int):
  """Returns batches whose parts, of every third example, have one example."""
  rng = np.random.default_rng(0)
  return [
    {
      "image": rng.integers(0, 256, (3, 4, 6, 3)).astype(np.uint8),
      "label": np.zeros((3, 4, 6), np.uint8),
      "size": np.tile(np.int32([4, 6]), (3, 1)),
      "index": np.arange(3, dtype=np.int32),
    }
    for _ in range(count)
  ]


def test_statistics_are_means_over_batches_at_any_momentum():
  batches = random_batches(3)
  before, after = recomputed(Norms(), batches)
  images = [(batch["image"] / 255 - 0.5) / 0.25 for batch in batches]
  mean = np.mean([x.mean((0, 1, 2)) for x in images], axis=0)
  var = np.mean([x.var((0, 1, 2)) for x in images], axis=0)
  for norm in ("fast", "slow"):
    got = after.batch_stats[norm]
    np.testing.assert_allclose(got["mean"], mean, atol=1e-4)
    np.testing.assert_allclose(got["var"], var, rtol=1e-4)
  assert after.params is before.params and after.step == before.step


def test_a_batch_in_parts_gives_the_means_over_parts():
  batch = random_batches(1)
  images = (batch[0]["image"] / 255 - 0.5) / 0.25
  _, after = recomputed(Norms(), batch, parts=3)
  for norm in ("fast", "slow"):
    got = after.batch_stats[norm]
    np.testing.assert_allclose(got["mean"], images.mean((0, 1, 2)), atol=1e-4)
    var = images.var((1, 2)).mean(0)
    np.testing.assert_allclose(got["var"], var, rtol=1e-4)


def test_large_statistics_do_not_cancel():
  """float32 resolves a mean of 1e6 to 0.06."""
  far = dataclasses.replace(PLAIN, mean=(-2.5e5,) * 3)
  batch = random_batches(1)
  _, after = recomputed(Norms(), batch, task=far)
  mean = (batch[0]["image"] / 255).mean((0, 1, 2)) / 0.25 + 1e6
  for norm in ("fast", "slow"):
    np.testing.assert_allclose(after.batch_stats[norm]["mean"], mean, rtol=1e-4)


def test_averaged_variables_get_statistics_of_their_own():
  """Those that training continues from stay."""
  before, after = recomputed(Norms(), random_batches(1), ema=True)
  assert after.batch_stats is before.batch_stats
  assert after.variables()["params"] is before.ema["params"]
  moved = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).min()),
    after.variables()["batch_stats"],
    before.ema["batch_stats"],
  )
  assert min(jax.tree.leaves(moved)) > 0.1


def test_frozen_statistics_stay():
  before, after = recomputed(Norms(frozen=True), random_batches(1))
  jax.tree.map(
    np.testing.assert_array_equal, after.batch_stats, before.batch_stats
  )
