"""Fully connected CRF by mean field (Kraehenbuehl and Koltun 2011).

A labelling x of the pixels has the energy (Sec. 2, Eq. 1-3)

  E(x) = sum_i psi(x_i) + sum_{i < j} mu(x_i, x_j) k(f_i, f_j),
  k(f_i, f_j) = w1 exp(-|p_i - p_j|^2 / 2 sa^2 - |I_i - I_j|^2 / 2 sb^2)
              + w2 exp(-|p_i - p_j|^2 / 2 sg^2),

where psi = -log P of a network, p is the position in pixels and I the colour in
0..255. It favours equal labels for every pair of pixels that are close and of
similar colour. Mean field (Sec. 3, Algorithm 1) looks for the closest product
of per-pixel distributions Q; it starts at P and repeats

  Q_i(l) = softmax_l( -psi_i(l) - sum_m sum_l' mu_m(l, l') sum_j k_m(f_i, f_j)
  Q_j(l') ).

The inner sum is a Gaussian filter of Q in the space of f. The `exact` filter
sums all pairs in blocks of rows, in time n^2 and without approximation; the
permutohedral `lattice` takes time linear in n. Both are differentiable in all
inputs except f.

Conventions are pydensecrf's: the sum over j includes i. Each kernel is
normalised by n_i = sum_j k(f_i, f_j), by default symmetrically, k / sqrt(n_i
n_j), which changes the meaning of a weight. Features are in the order y, x, r,
g, b. pydensecrf's kernel types (CONST, DIAG, FULL) differ in their trainable
parameters, not in inference.
"""

from collections.abc import Callable, Sequence
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num
import numpy as np

from jaxseg.errors import UserError
from jaxseg.layers import permutohedral
from jaxseg.layers.crf_settings import CRF, Std

TINY = 1e-20  # Added to n_i, as in DenseCRF's pairwise.cpp.
PAIRS = 2**22  # Pairs of pixels that the exact filter holds at a time.

Filter = Callable[[jax.Array], jax.Array]
Energy = Callable[[Sequence[jax.Array]], jax.Array]


def mean_field(
  log_probability: Float[Array, "..."],
  image: Num[Array, "..."],
  crf: CRF,
  *,
  spatial_weight: Float[Array, "..."] | None = None,
  bilateral_weight: Float[Array, "..."] | None = None,
) -> Float[Array, "..."]:
  """Returns the logarithm of Q after `crf.iterations` rounds of mean field.

  This is a pure function of static shapes, differentiable in the probabilities
  and the weights. Images of a batch are processed one after the other, so that
  memory holds one lattice.

  Args:
    log_probability: Log-probabilities of the network, `[n, h, w, k]` or `[h, w,
      k]`; -inf excludes a label. Logits give the same result.
    image: Images `[n, h, w, c]` or `[h, w, c]` of values 0..255.
    crf: Settings.
    spatial_weight: Array `[]`, `[k]` or `[k, k]` that replaces
      `crf.spatial_weight`, for example to train it.
    bilateral_weight: Array that replaces `crf.bilateral_weight`.

  Raises:
    UserError: Shapes do not fit or, outside of jit, a probability is NaN.
  """
  weights = {
    "spatial_weight": spatial_weight,
    "bilateral_weight": bilateral_weight,
  }
  for name, given in weights.items():
    own = jnp.asarray(getattr(crf, name), jnp.float32)
    weights[name] = own if given is None else given
  _check(log_probability, image, crf, weights)
  if log_probability.ndim == 3:
    return _mean_field(
      log_probability[None], image[None], *weights.values(), crf
    )[0]
  return _mean_field(log_probability, image, *weights.values(), crf)


@functools.partial(jax.jit, static_argnames="crf")
def _mean_field(
  log_probability: Float[Array, "n h w k"],
  image: Num[Array, "n h w c"],
  spatial: Array,
  bilateral: Array,
  crf: CRF,
) -> Float[Array, "n h w k"]:
  def one(inputs):
    return infer(
      inputs[0],
      filters(inputs[1], crf),
      lambda messages: (
        pairwise(messages[0], spatial) + pairwise(messages[1], bilateral)
      ),
      crf.iterations,
    )

  return jax.nn.log_softmax(jax.lax.map(one, (log_probability, image)))


def infer(
  unary: Float[Array, "h w k"],
  kernels: Sequence[Filter],
  energy: Energy,
  iterations: int,
) -> Float[Array, "h w k"]:
  """Runs mean field and returns logits, whose softmax is Q.

  Args:
    unary: Logits or log-probabilities, i.e. -psi.
    kernels: Gaussian filters of `[pixels, k]` values.
    energy: Function from Q filtered by each kernel to the pairwise energy
      `[pixels, k]`.
    iterations: Number of updates of Q.
  """
  start = unary.reshape(-1, unary.shape[-1]).astype(jnp.float32)

  def update(logits, _):
    q = jax.nn.softmax(logits)
    return start - energy([kernel(q) for kernel in kernels]), None

  logits, _ = jax.lax.scan(update, start, length=iterations)
  return logits.reshape(unary.shape)


def pairwise(
  message: Float[Array, "pixels k"], weight: Array
) -> Float[Array, "pixels k"]:
  """Returns the energy of each label for a filtered Q (see `Weight`)."""
  if weight.ndim == 0:
    return -weight * message
  if weight.ndim == 1:
    return weight * message
  # A symmetric matrix may multiply from either side.
  return jnp.matmul(message, (weight + weight.T) / 2, precision="highest")


def filters(image: Num[Array, "h w c"], crf: CRF) -> tuple[Filter, Filter]:
  """Returns the normalised spatial and bilateral filter of `[h w, k]`."""
  return tuple(
    _normalised(features, crf)
    for features in (
      spatial_features(image.shape[:2], crf.spatial_std),
      bilateral_features(image, crf.bilateral_std, crf.colour_std),
    )
  )


def spatial_features(
  size: tuple[int, int], std: Std
) -> Float[Array, "pixels 2"]:
  """Returns rows and columns in standard deviations."""
  y, x = (
    jax.lax.broadcasted_iota(jnp.float32, size, axis) / np.float32(s)
    for axis, s in enumerate(np.broadcast_to(std, 2))
  )
  return jnp.stack([y.ravel(), x.ravel()], axis=1)


def bilateral_features(
  image: Num[Array, "h w c"],
  std: Std,
  colour_std: Std,
) -> Float[Array, "pixels c+2"]:
  """Returns rows, columns and colours in standard deviations."""
  h, w, c = image.shape
  colour = image.astype(jnp.float32) / np.broadcast_to(
    np.float32(colour_std), c
  )
  place = spatial_features((h, w), std)
  return jnp.concatenate([place, colour.reshape(h * w, c)], axis=1)


def _normalised(features: Float[Array, "pixels d"], crf: CRF) -> Filter:
  """Returns a Gaussian filter normalised as in DenseCRF's pairwise.cpp."""
  features = jax.lax.stop_gradient(features)
  if crf.filter == "exact":
    gaussian = functools.partial(exact_filter, features)
  else:
    gaussian = functools.partial(
      permutohedral.gaussian_filter, permutohedral.build(features)
    )
  if crf.normalisation == "none":
    return gaussian
  mass = gaussian(jnp.ones((features.shape[0], 1))) + TINY
  if crf.normalisation == "before":
    return lambda q: gaussian(q / mass)
  if crf.normalisation == "after":
    return lambda q: gaussian(q) / mass
  root = jnp.sqrt(mass)
  return lambda q: gaussian(q / root) / root


def exact_filter(
  features: Float[Array, "n d"], values: Float[Array, "n k"]
) -> Float[Array, "n k"]:
  """Returns sum_j exp(-|f_i - f_j|^2 / 2) v_j, computed in blocks of rows."""
  n, d = features.shape
  block = min(max(PAIRS // n, 1), n)
  blocks = -(-n // block)
  padded = jnp.pad(features, ((0, blocks * block - n), (0, 0)))

  # The gradient recomputes each block, so nothing of size n^2 is stored.
  @jax.checkpoint
  def rows(part):
    # |a|^2 + |b|^2 - 2ab would lose the digits of points that are close.
    distance = sum(
      jnp.square(part[:, None, i] - features[None, :, i]) for i in range(d)
    )
    return jnp.matmul(jnp.exp(-distance / 2), values, precision="highest")

  out = jax.lax.map(rows, padded.reshape(blocks, block, d))
  return out.reshape(blocks * block, -1)[:n]


def _check(log_probability, image, crf: CRF, weights) -> None:
  """Raises UserError for shapes that do not fit and for NaN."""
  p, i = log_probability.shape, image.shape
  if len(p) not in (3, 4) or len(i) != len(p) or p[:-1] != i[:-1] or not p[-1]:
    raise UserError(
      f"CRF: log_probability is {list(p)} and image {list(i)}; expected "
      "[n, h, w, classes] and [n, h, w, channels], or both without n, of equal "
      "size"
    )
  if np.size(crf.colour_std) not in (1, i[-1]):
    raise UserError(
      f"CRF: colour_std={crf.colour_std} for images of {i[-1]} channels; "
      "expected one number, or one for each channel"
    )
  for name, weight in weights.items():
    if weight.ndim > 2 or set(weight.shape) - {p[-1]}:
      raise UserError(
        f"CRF: {name} has shape {list(weight.shape)} and there are {p[-1]} "
        f"classes; expected a number, [{p[-1]}] or [{p[-1]}, {p[-1]}]"
      )
  if crf.filter == "lattice":
    _check_bandwidths(*i[-3:], crf)
  if not isinstance(log_probability, jax.core.Tracer) and bool(
    jnp.isnan(log_probability).any()
  ):
    bad = np.argwhere(np.isnan(np.asarray(log_probability)))[0]
    raise UserError(
      f"CRF: log_probability{bad.tolist()} is NaN; expected log-probabilities "
      "(-inf is allowed). Check the network for a division by zero"
    )


def _check_bandwidths(h: int, w: int, c: int, crf: CRF) -> None:
  place = np.array([h, w]) / np.broadcast_to(crf.bilateral_std, 2)
  extents = {
    "spatial_std": np.array([h, w]) / np.broadcast_to(crf.spatial_std, 2),
    "bilateral_std or colour_std": np.concatenate(
      [place, 255 / np.broadcast_to(crf.colour_std, c)]
    ),
  }
  for name, extent in extents.items():
    if not permutohedral.fits(extent):
      raise UserError(
        f"CRF: {name} is too small for the lattice on {h}x{w} pixels; use a "
        "larger one, or filter='exact'"
      )
