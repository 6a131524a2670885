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
    step: Number of steps taken, which is that of updates; an int32 scalar.
    params: Parameters, float32.
    batch_stats: Running statistics of the norms, float32.
    opt_state: State of the optimizer.
    ema: Exponential moving averages of `params` and `batch_stats` in a dict of
      these names, or None.
  """

  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any

  def variables(self) -> dict[str, Any]:
    """Returns the variables for evaluation: their averages, if any."""
    if self.ema is not None:
      return self.ema
    return {"params": self.params, "batch_stats": self.batch_stats}

  def with_evaluated_stats(self, batch_stats: Any) -> "TrainState":
    """Returns the state with other batch statistics in `variables()`."""
    if self.ema is not None:
      return self.replace(ema={**self.ema, "batch_stats": batch_stats})
    return self.replace(batch_stats=batch_stats)


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
    ema: Whether the state has moving averages of the variables.
  """
  variables = model.init(key, jnp.zeros(image_shape), train=False)
  variables = {
    "params": variables["params"],
    "batch_stats": variables.get("batch_stats", {}),
  }
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    **variables,
    opt_state=optimizer.init(variables["params"]),
    ema=jax.tree.map(jnp.copy, variables) if ema else None,
  )
