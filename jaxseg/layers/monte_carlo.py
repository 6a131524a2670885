"""Monte Carlo dropout: mean and variance over networks drawn by dropout.

The idea (Gal & Ghahramani 2016, arXiv:1506.02142; for segmentation, Bayesian
SegNet, Kendall et al. 2015, arXiv:1511.02680, Fig. 1): a network whose dropout
stays on at test time is a sample of an approximate posterior. The mean of the
class probabilities over samples is the prediction and their variance its
uncertainty.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxseg.layers.norm import BatchNorm
from jaxseg.types import Images


def monte_carlo(
  model: nn.Module,
  variables: Any,
  image: Images,
  *,
  key: jax.Array,
  samples: int,
  at_once: int = 4,
) -> tuple[Float[Array, "n h w k"], Float[Array, "n h w k"]]:
  """Returns mean and variance of the class probabilities under dropout.

  Dropout is active and batch normalisation uses its running statistics.
  Layers before the first dropout are computed once for each group of samples.
  Groups are merged by the parallel variance algorithm (Chan et al. 1979), so
  that only one of them is in memory at a time.

  All images of a batch share the dropout masks of a sample, so the result for
  an image depends neither on its row nor on the other images.

  Args:
    model: Bayesian SegNet, or any network with dropout.
    variables: Variables of the network.
    image: Normalised images.
    key: Key from which the samples' keys are split.
    samples: Number of samples; the authors' scripts draw about 40.
    at_once: Upper bound of the samples computed in parallel by `vmap`; memory
      grows with it. The group size is the largest divisor of `samples` within
      this bound.

  Returns:
    Means `[n, h, w, k]`, which sum to 1 over k, and variances (with
    denominator `samples`) of the same shape.
  """

  def probabilities(key):
    def of_one(x):
      outputs = model.apply(
        variables, x[None], train=True, rngs={"dropout": key}
      )
      return jax.nn.softmax(outputs["logits"][0])

    with nn.intercept_methods(_use_running_statistics):
      return jax.vmap(of_one)(image)

  group = next(g for g in range(at_once, 0, -1) if samples % g == 0)

  def merge(carry, keys):
    count, mean, squares = carry
    drawn = jax.vmap(probabilities)(keys)
    group_mean = jnp.mean(drawn, axis=0)
    step = group_mean - mean
    total = count + group
    mean += step * (group / total)
    squares += jnp.sum(jnp.square(drawn - group_mean), axis=0)
    squares += jnp.square(step) * (count * group / total)
    return (total, mean, squares), None

  keys = jax.random.split(key, samples).reshape(-1, group)
  zeros = jnp.zeros_like(jax.eval_shape(probabilities, key))
  carry = (jnp.zeros(()), zeros, zeros)
  (_, mean, squares), _ = jax.lax.scan(merge, carry, keys)
  return mean, squares / samples


def _use_running_statistics(next_function, args, kwargs, context):
  """Makes every BatchNorm act as in evaluation; a Flax interceptor."""
  if isinstance(context.module, BatchNorm) and "train" in kwargs:
    kwargs = {**kwargs, "train": False}
  return next_function(*args, **kwargs)
