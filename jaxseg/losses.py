"""Losses over pixels. Each returns (sum, weight), never a mean.

The caller adds sums and weights over heads, devices and accumulated batches
and divides once. A pixel therefore counts the same wherever it was computed.

The label of an ignored pixel is replaced by a valid class before it is used
as an index, and the weight of the pixel is 0. Ignored labels change neither
the loss nor its gradient. (In JAX, an index of 255 gives NaN or is dropped
silently, and an index of -1 trains the last class.)
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math

from flax.core import FrozenDict
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from jaxseg.errors import UserError, unknown_name
from jaxseg.regions import connected_regions, nearest_two

NORMALISERS = ("weight", "count", "images")


def border_weights(
  label: Integer[Array, "h w"],
  *,
  ignore_label: int,
  w0: float = 10.0,
  std: float = 5.0,
) -> Float[Array, "h w"]:
  """Returns U-Net's weights of the background between close cells.

  This is the second term of Ronneberger et al. 2015, Eq. 2,
    w0 exp(-(d1 + d2)^2 / (2 std^2)),
  on pixels of class 0. d1 and d2 are the distances to the nearest and the
  second nearest cell. A cell is a connected region of any other class. The
  first term of Eq. 2 balances the classes; `class_weights` of
  `softmax_cross_entropy` does this. Distances are computed up to 6 std, where
  the weight is below 2e-8 w0.

  Args:
    label: Class ids or `ignore_label`.
    ignore_label: Label of the pixels that are neither cell nor background.
    w0: Weight where two cells touch; 10 in the paper.
    std: Standard deviation in pixels; about 5 in the paper (sigma).

  Returns:
    The weights, 0 on all pixels that are not background.
  """
  cells = (label > 0) & (label != ignore_label)
  regions = connected_regions(label, cells)
  d1, d2 = nearest_two(regions, reach=math.ceil(6 * std))
  weights = w0 * jnp.exp(-((d1 + d2) ** 2) / (2 * std**2))
  return jnp.where(label == 0, weights, 0.0)


def softmax_cross_entropy(
  logits: Float[Array, "*pixels k"],
  label: Integer[Array, "*pixels"],
  *,
  ignore_label: int,
  class_weights: Sequence[float] | jax.Array | None = None,
  added_weights: Float[Array, "*pixels"] | None = None,
  label_smoothing: float = 0.0,
  normalise_by: str = "weight",
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Computes the softmax cross-entropy of torch.nn.CrossEntropyLoss.

  With class weights w, smoothing e and k classes, a pixel of class y costs
    -(1 - e) w[y] log p[y] - (e / k) sum_c w[c] log p[c].
  `added_weights` is added to each class weight w at its pixel.

  Args:
    logits: Outputs before the softmax, of any float dtype. The loss is
      computed in float32.
    label: Class ids 0..k-1 or `ignore_label`.
    ignore_label: Label of the pixels that count nowhere.
    class_weights: Weight of each class. None or () gives each class weight 1.
    added_weights: Additional weight of each pixel, e.g. `border_weights`.
    label_smoothing: Share e of the target that is spread over all classes.
    normalise_by: Denominator of the loss. "weight" is the sum of the weights
      of the valid pixels, as in torch. "count" is the number of valid pixels,
      as in Caffe and SegNet's median-frequency balancing. "images" is the
      batch size, so that the costs of the pixels of an image are added, as in
      FCN's released solvers.

  Returns:
    The float32 sum of the costs and the float32 denominator. The sum is 0
    when every pixel is ignored; so is the denominator, except for "images".

  Raises:
    UserError: `normalise_by` is unknown, or the number of class weights is
      wrong.
  """
  if normalise_by not in NORMALISERS:
    raise unknown_name("loss normaliser", normalise_by, NORMALISERS)
  classes = logits.shape[-1]
  valid = label != ignore_label
  label = jnp.where(valid, label, 0).astype(jnp.int32)
  logits = logits.astype(jnp.float32)
  logits -= jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
  log_sum = jnp.log(jnp.sum(jnp.exp(logits), axis=-1))
  # XLA fuses the comparison with the sum, and their gradient needs no
  # scatter.
  is_class = label[..., None] == jnp.arange(classes)
  log_p = jnp.sum(jnp.where(is_class, logits, 0.0), axis=-1) - log_sum
  pixel_weight = valid.astype(jnp.float32)
  weights = jnp.ones(classes, jnp.float32)
  if class_weights is not None and len(class_weights):
    weights = _class_weights(class_weights, classes)
    pixel_weight *= weights[label]
  if added_weights is not None:
    pixel_weight += jnp.where(valid, added_weights, 0.0)
  cost = -pixel_weight * log_p
  if label_smoothing:
    if added_weights is not None:
      weights = weights + added_weights[..., None]
    all_log_p = jnp.sum(weights * (logits - log_sum[..., None]), axis=-1)
    smooth = -valid.astype(jnp.float32) * all_log_p / classes
    cost = (1 - label_smoothing) * cost + label_smoothing * smooth
  if normalise_by == "count":
    pixel_weight = valid.astype(jnp.float32)
  elif normalise_by == "images":
    pixel_weight = jnp.ones(label.shape[:1], jnp.float32)
  return jnp.sum(cost), jnp.sum(pixel_weight)


@dataclasses.dataclass(frozen=True)
class HeadsLoss:
  """Cross-entropy of several outputs of one network, weighted and added.

  Attributes:
    heads: Weight of each output's loss, e.g. `{"logits": 1.0, "aux_logits":
      0.4}`. Outputs that are not named are not trained.
    class_weights: Weight of each class. () gives each class weight 1.
    label_smoothing: Share of the target that is spread over all classes.
    normalise_by: Denominator of the loss, one of `NORMALISERS`.
    label_stride: Stride n of the pixels that the loss reads: every n-th pixel
      of every n-th row. Where `zoom_bilinear` enlarged the logits n times,
      these pixels have the logits before the enlargement, and the loss is
      DeepLab's on the shrunken label.
    border_weight: `w0` of `border_weights`, which are added to the weights of
      the pixels; 0 adds none.
    border_std: `std` of `border_weights`, in pixels.
  """

  heads: Mapping[str, float] = FrozenDict({"logits": 1.0})
  class_weights: tuple[float, ...] = ()
  label_smoothing: float = 0.0
  normalise_by: str = "weight"
  label_stride: int = 1
  border_weight: float = 0.0
  border_std: float = 5.0

  def __post_init__(self):
    # A plain dict cannot be hashed.
    object.__setattr__(self, "heads", FrozenDict(self.heads))
    object.__setattr__(self, "class_weights", tuple(self.class_weights))
    if not self.heads:
      raise UserError(
        "loss.heads is empty; expected the weight of at least one output of "
        'the network, such as {"logits": 1.0}'
      )
    if self.normalise_by not in NORMALISERS:
      raise unknown_name("loss.normalise_by", self.normalise_by, NORMALISERS)

  def __call__(
    self,
    outputs: Mapping[str, jax.Array],
    label: Integer[Array, "*pixels"],
    *,
    ignore_label: int,
  ) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the weighted sum of the losses of all heads.

    Args:
      outputs: Outputs of the network, logits `[*pixels, k]` by key.
      label: Class ids 0..k-1 or `ignore_label`.
      ignore_label: Label of the pixels that count nowhere.

    Returns:
      The weighted sum of the heads' sums, and the denominator, which is the
      same for all heads.

    Raises:
      UserError: The network lacks a head, or `border_weight` or
        `label_stride` is set for labels of whole images.
    """
    if self.label_stride != 1 and label.ndim == 1:
      raise UserError(
        f"loss.label_stride={self.label_stride} for labels of whole images; a "
        "stride needs labels of pixels, leave it at 1"
      )
    stride = slice(None, None, self.label_stride)
    sample = (slice(None), *(label.ndim - 1) * (stride,))
    added_weights = None
    if self.border_weight:
      added_weights = _image_border_weights(
        label,
        ignore_label=ignore_label,
        w0=self.border_weight,
        std=self.border_std,
      )[sample]
    total, weight = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
    for head, head_weight in self.heads.items():
      if head not in outputs:
        raise unknown_name("output in loss.heads", head, outputs)
      head_sum, weight = softmax_cross_entropy(
        outputs[head][sample],
        label[sample],
        ignore_label=ignore_label,
        class_weights=self.class_weights,
        added_weights=added_weights,
        label_smoothing=self.label_smoothing,
        normalise_by=self.normalise_by,
      )
      total += head_weight * head_sum
    return total, weight


def _image_border_weights(
  label, *, w0: float, **options
) -> Float[Array, "n h w"]:
  """Returns `border_weights` of each image."""
  if label.ndim != 3:
    raise UserError(
      f"loss.border_weight is {w0} for labels of shape {label.shape}; "
      "border weights need labels [n, h, w]; leave it at 0"
    )
  return jax.vmap(functools.partial(border_weights, w0=w0, **options))(label)


def _class_weights(class_weights, classes: int) -> jax.Array:
  if len(class_weights) != classes:
    raise UserError(
      f"loss.class_weights has {len(class_weights)} numbers for {classes} "
      "classes; give one number per class, in the order of data.class_names"
    )
  return jnp.asarray(class_weights, jnp.float32)
