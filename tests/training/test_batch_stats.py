"""Recomputed batch statistics are the means that NumPy computes."""

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


def recomputed(model, batches):
  image = jnp.zeros((1, 4, 6, 3))
  variables = model.init(jax.random.key(0), image, train=False)
  state = TrainState(
    step=jnp.asarray(7, jnp.int32),
    params=variables["params"],
    batch_stats=jax.tree.map(lambda a: a + 3, variables["batch_stats"]),
    opt_state=(),
    ema=None,
  )
  recompute = make_recompute_batch_stats(
    model,
    PLAIN,
    seed=0,
    count=len(batches),
    mesh=sharding.make_mesh(jax.devices()[:1]),
  )
  return state, recompute(state, iter(batches))


def random_batches(count: int):
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


def test_frozen_statistics_stay():
  before, after = recomputed(Norms(frozen=True), random_batches(1))
  jax.tree.map(
    np.testing.assert_array_equal, after.batch_stats, before.batch_stats
  )
