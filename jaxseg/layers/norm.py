"""Normalisation, injected into every network as `norm=`.

A network calls `self.norm(name="bn")(x, train=train)`; `BatchNorm`,
`GroupNorm` and `NoNorm` all answer to that. Under `jit` with a batch-sharded
input `BatchNorm` is global by itself; `axis_name` is for `pmap` and
`shard_map`, where each device sees only its own examples.

The running variance is the biased one, as in Flax; PyTorch stores n/(n-1) of
it (facts measured against torch.nn.BatchNorm2d in tests/layers).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.errors import UserError


class BatchNorm(nn.BatchNorm):
  """Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167, Alg. 1).

  Attributes:
    momentum: share of the old running statistic kept at each step; PyTorch's
      `momentum=0.1` is 0.9 here.
    epsilon: added to the variance.
    frozen: use the running statistics even when training, and never update
      them; scale and bias still train (mask them in the optimizer to freeze).
    axis_name: mapped axis to average statistics over, under pmap/shard_map.
    dtype: computation dtype; statistics are always float32.
    use_fast_variance: False computes the variance in a second pass, exact
      where E[x^2] - E[x]^2 cancels.
  """

  momentum: float = 0.9
  frozen: bool = False
  use_fast_variance: bool = False

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Normalises `x`.

    Raises:
      UserError: in training, where a channel has a single value: less its
        mean it is 0, whatever it was.
    """
    learns = train and not self.frozen
    if learns and not self.is_initializing():
      values = x.size // x.shape[-1]
      if self.axis_name is not None:
        values *= jax.lax.axis_size(self.axis_name)
      if values == 1:
        raise UserError(
          f"batch normalisation {'/'.join(self.scope.path)} sees one value a "
          "channel, as of one image pooled to a single pixel; raise "
          "train.batch_size to 2 or more, or choose norm.frozen=True or "
          "norm.name=group"
        )
    return super().__call__(x, use_running_average=not learns)


class GroupNorm(nn.GroupNorm):
  """Group normalisation (Wu & He 2018, arXiv:1803.08494, Eq. 1)."""

  epsilon: float = 1e-5

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    del train  # The same in training and evaluation.
    return super().__call__(x)


class NoNorm(nn.Module):
  """The identity, where a paper has no normalisation."""

  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    del train
    return x


NORMS = {"batch": BatchNorm, "group": GroupNorm, "none": NoNorm}
