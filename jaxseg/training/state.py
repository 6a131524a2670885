"""The train state: arrays only, so that it is saved and sharded as it is."""

from typing import Any

from flax import struct
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


@struct.dataclass
class TrainState:
  """Everything one training step reads and writes.

  Attributes:
    step: int32 scalar, steps taken.
    params: parameters, float32.
    batch_stats: running statistics of the norms, float32.
    opt_state: the optimizer's slots.
    ema: moving average of `params`, or None.
  """

  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any

  def variables(self) -> dict[str, Any]:
    """What `model.apply` takes for evaluation: the average if there is one."""
    params = self.params if self.ema is None else self.ema
    return {"params": params, "batch_stats": self.batch_stats}


def create_state(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  key: jax.Array,
  image_shape: tuple[int, int, int, int],
  *,
  ema: bool = False,
) -> TrainState:
  """Initialises a state; pure, so it can be jitted with output shardings."""
  variables = model.init(key, jnp.zeros(image_shape), train=False)
  params = variables["params"]
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables.get("batch_stats", {}),
    opt_state=optimizer.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema else None,
  )
