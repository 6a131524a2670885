"""CRF-RNN: mean field as a trainable layer (Zheng et al. 2015, Sec. 4-5).

The idea (their Fig. 1): an iteration of mean field is a stack of common layers,
so T iterations with shared parameters are a recurrent network. Backpropagation
trains it together with the network that computes the unaries:

  Q <- softmax(H)
  M <- K_s filter_s(Q) + K_b filter_b(Q)     weighting filter outputs
  H <- U - C M                               compatibility transform, unaries

U are the logits of the network. filter_s and filter_b are the spatial and the
bilateral Gaussian filter of a dense CRF, normalised after filtering. K_s and
K_b [k, k] start as the identity, the compatibility C [k, k] as minus the
identity, as in the authors' Keras code, whose bandwidths are theta_alpha 160,
theta_beta 3, theta_gamma 3. The output is H, not its softmax. The paper trains
with 5 iterations, against vanishing gradients, and tests with 10.

The layer is public API: apply it to the logits of any network.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxseg.errors import UserError
from jaxseg.layers.crf_settings import CRF
from jaxseg.layers.dense_crf import filters, infer


def _minus_identity(key, shape, dtype):
  del key
  return -jnp.eye(*shape, dtype=dtype)


def _identity(key, shape, dtype):
  del key
  return jnp.eye(*shape, dtype=dtype)


class CRFRNN(nn.Module):
  """Refines the logits of any network and trains together with it.

  Attributes:
    num_classes: Number of channels of the logits.
    iterations: Mean-field iterations in evaluation.
    train_iterations: Mean-field iterations in training.
    theta_alpha: Standard deviation of the bilateral kernel in position, in
      pixels.
    theta_beta: Standard deviation of the bilateral kernel in colour, in units
      of 0..255.
    theta_gamma: Standard deviation of the spatial kernel, in pixels.
    filter: Gaussian filter, "lattice" or "exact".
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  iterations: int = 10
  train_iterations: int = 5
  theta_alpha: float = 160.0
  theta_beta: float = 3.0
  theta_gamma: float = 3.0
  filter: str = "lattice"
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    logits: Float[Array, "..."],
    image: Num[Array, "..."],
    *,
    train: bool,
  ) -> Float[Array, "n h w k"]:
    """Returns refined logits.

    Args:
      logits: Logits of the network, `[n, h, w, num_classes]`.
      image: Images `[n, h, w, c]` of values 0..255, not normalised.
      train: Whether to run `train_iterations` instead of `iterations`.

    Raises:
      UserError: The shapes do not fit.
    """
    if (
      logits.ndim != 4
      or image.ndim != 4
      or logits.shape != (*image.shape[:3], self.num_classes)
    ):
      raise UserError(
        f"CRF-RNN: logits are {list(logits.shape)} and images "
        f"{list(image.shape)}; expected [n, h, w, {self.num_classes}] and "
        "[n, h, w, channels] with equal n, h and w"
      )
    # The weights of this CRF are unused; the parameters below replace them.
    crf = CRF(
      iterations=self.train_iterations if train else self.iterations,
      spatial_std=self.theta_gamma,
      bilateral_std=self.theta_alpha,
      colour_std=self.theta_beta,
      normalisation="after",
      filter=self.filter,
    )
    shape = (self.num_classes, self.num_classes)
    dtype = self.param_dtype
    spatial = self.param("spatial_weights", _identity, shape, dtype)
    bilateral = self.param("bilateral_weights", _identity, shape, dtype)
    compatibility = self.param("compatibility", _minus_identity, shape, dtype)

    def energy(messages):
      m = _mix(spatial, messages[0]) + _mix(bilateral, messages[1])
      return _mix(compatibility, m)

    def refine(inputs):
      unary, pixels = inputs
      return infer(unary, filters(pixels, crf), energy, crf.iterations)

    # Images are refined one after the other, so that memory holds one lattice.
    return jax.lax.map(refine, (logits, image))


def _mix(
  matrix: Float[Array, "k k"], x: Float[Array, "pixels k"]
) -> Float[Array, "pixels k"]:
  """Multiplies the vector of each pixel by a matrix."""
  return jnp.einsum("lm,pm->pl", matrix, x, precision="highest")
