"""Local response normalisation (Krizhevsky et al. 2012, Sec. 3.3).

Each value is divided by a power of the energy of its neighbours across
channels, as in Caffe's LRN layer ("ACROSS_CHANNELS"):

  y_c = x_c (k + alpha / size * sum_{|j - c| <= size / 2} x_j^2)^-beta.

The paper's alpha is alpha / size here.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def local_response_norm(
  x: Float[Array, "*pixels c"],
  size: int = 5,
  *,
  alpha: float = 1e-4,
  beta: float = 0.75,
  k: float = 1.0,
) -> Float[Array, "*pixels c"]:
  """Normalises across channels; equals torch.nn.LocalResponseNorm.

  Args:
    x: Input, channels last.
    size: Odd number of channels in the window; channels beyond the first and
      the last count as zeros.
    alpha: Weight of the mean energy.
    beta: Exponent.
    k: Constant added to the energy.
  """
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  last = x.ndim - 1
  energy = jax.lax.reduce_window(
    jnp.square(wide),
    0.0,
    jax.lax.add,
    (1,) * last + (size,),
    (1,) * x.ndim,
    ((0, 0),) * last + ((size // 2, size // 2),),
  )
  return (wide * (k + alpha / size * energy) ** -beta).astype(x.dtype)
