"""The train state, which contains arrays only.

It can therefore be saved, sharded and donated as a whole.
"""

from typing import Any

from flax import struct
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


@struct.dataclass
class TrainState:
  """Everything that a training step reads and writes.

  Attributes:
    step: Number of steps taken, an int32 scalar.
    params: Parameters, float32.
    batch_stats: Running statistics of the norms, float32.
    opt_state: State of the optimizer.
    ema: Exponential moving average of `params`, or None.
  """

  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any

  def variables(self) -> dict[str, Any]:
    """Returns the variables for evaluation, with averaged parameters if any."""
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
  """Returns a random initial state.

  The function is pure, so it can be jitted with output shardings.

  Args:
    model: The network.
    optimizer: Optax transformation.
    key: Random key of the parameters.
    image_shape: Shape of a batch of images, `(n, h, w, 3)`.
    ema: Whether the state has a moving average of the parameters.
  """
  variables = model.init(key, jnp.zeros(image_shape), train=False)
  params = variables["params"]
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables.get("batch_stats", {}),
    opt_state=optimizer.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema else None,
  )
