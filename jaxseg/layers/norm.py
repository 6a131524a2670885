"""Normalisation layers, injected into every network as `norm=`.

A network calls `self.norm(name="norm")(x, train=train)`; `BatchNorm`,
`GroupNorm` and `NoNorm` share this interface. Under `jit` with a batch-sharded
input, `BatchNorm` computes its statistics over the global batch. Set
`axis_name` under `pmap` and `shard_map`, where each device sees only its own
examples.

The running variance is the biased one, as in Flax; PyTorch stores n / (n - 1)
times as much (`tests/layers/test_norm.py` compares both).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.errors import UserError


class BatchNorm(nn.BatchNorm):
  """Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167, Alg. 1).

  Attributes:
    momentum: Share of the old running statistic that each step keeps;
      PyTorch's `momentum=0.1` is 0.9 here.
    epsilon: Constant added to the variance.
    frozen: Whether training, too, uses the running statistics and leaves them
      unchanged. Scale and bias still train; mask them in the optimizer to
      freeze them.
    axis_name: Mapped axis to average statistics over, under pmap or shard_map.
    dtype: Computation dtype; statistics are always float32.
    use_fast_variance: Whether to compute the variance as E[x^2] - E[x]^2. False
      computes it in a second pass, which is exact where that difference
      cancels.
  """

  momentum: float = 0.9
  frozen: bool = False
  use_fast_variance: bool = False

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Normalises `x`.

    Raises:
      UserError: A channel has a single value in training; subtracting the
        mean would turn any value into 0.
    """
    learns = train and not self.frozen
    if learns and not self.is_initializing():
      values = x.size // x.shape[-1]
      if self.axis_name is not None:
        values *= jax.lax.axis_size(self.axis_name)
      if values == 1:
        raise UserError(
          f"batch normalisation {'/'.join(self.scope.path)} has one value for "
          "each channel, for example one image pooled to a single pixel; it "
          "needs two or more: increase --config.train.batch_size, or set "
          "--config.norm.name=group, or set --config.norm.frozen=True to keep "
          "the averages of loaded weights"
        )
    return super().__call__(x, use_running_average=not learns)


class GroupNorm(nn.Module):
  """Group normalisation (Wu & He 2018, arXiv:1803.08494, Eq. 1).

  The paper's 32 groups need 64 channels or more to have two channels each, and
  a number of channels that 32 divides. Other layers get fewer groups, see
  `group_count`.

  Attributes:
    groups: Largest number of groups; 32 in the paper.
    epsilon: Constant added to the variance.
    dtype: Computation dtype; statistics are always float32.
    param_dtype: Dtype of the parameters.
  """

  groups: int = 32
  epsilon: float = 1e-5
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    del train  # Training and evaluation compute the same.
    norm = nn.GroupNorm(
      group_count(x.shape[-1], self.groups),
      epsilon=self.epsilon,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      use_fast_variance=False,
    )
    # The parameters are those of this module: "norm/scale" and "norm/bias".
    nn.share_scope(self, norm)
    return norm(x)


def group_count(channels: int, groups: int) -> int:
  """Returns the number of groups that a layer is divided into.

  It is the largest divisor of `channels` that is at most `groups` and leaves
  two channels or more in each group. (A group of one channel, pooled to a
  single pixel, would always become 0.) A prime number of channels is one group.
  """
  most = min(groups, channels // 2)
  divisors = (n for n in range(most, 1, -1) if channels % n == 0)
  return next(divisors, 1)


class NoNorm(nn.Module):
  """Identity, for networks without normalisation.

  Attributes:
    dtype: Unused; networks pass it to every norm.
    param_dtype: Unused; networks pass it to every norm.
  """

  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    del train
    return x


NORMS = {"batch": BatchNorm, "group": GroupNorm, "none": NoNorm}
