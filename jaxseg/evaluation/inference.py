"""Inference: whole images, sliding windows, several scales, dense CRF.

All functions are pure and have static shapes. Several views of an image
(overlapping windows, scales, mirror images) are combined by averaging their
class probabilities, as the papers do (PSPNet Sec. 5.2, DeepLab). The result is
the logarithm of the mean. It can be used like logits: its softmax is the mean
and its argmax the predicted class.

A dense CRF refines these probabilities with the colours of the image (DeepLab,
DeconvNet). The result is then log Q.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, UInt8
from ml_collections import ConfigDict
import numpy as np

from jaxseg import sharding
from jaxseg.errors import UserError, unknown_name
from jaxseg.layers import crf_settings
from jaxseg.layers.bilinear import interpolate, rational_taps, taps
from jaxseg.layers.dense_crf import mean_field
from jaxseg.layers.monte_carlo import monte_carlo
from jaxseg.layers.resize import resize_bilinear, source_positions
from jaxseg.tasks.task import Task
from jaxseg.types import Images

# One vector per pixel, or one per image if the network classifies images.
Logits = Float[Array, "n *pixels k"]

MODES = ("whole", "sliding")
# Lower bound of the probabilities that enter a CRF, as in
# pydensecrf.utils.unary_from_softmax.
MIN_PROBABILITY = 1e-5
# Largest number of pixels of an enlarged image. A network needs kilobytes for
# each of them.
MAX_PIXELS = 2**25
STRIPE = 2**23  # Number of logits that `ids_at_size` resizes at a time.


@dataclasses.dataclass(frozen=True)
class Inference:
  """Settings of inference; hashable.

  Attributes:
    mode: "whole" for whole images, "sliding" for sliding windows.
    window: Height and width of a sliding window.
    stride: Step of the windows as a share of their sides.
    scales: Factors by which the input is resized; probabilities are averaged.
    flip: Whether to average with the mirrored input.
    crf: Dense CRF that refines the result, or None for no CRF.
    dropout_samples: Number of dropout samples to average over (Bayesian
      SegNet); 0 switches dropout off.
  """

  mode: str = "whole"
  window: tuple[int, int] = (0, 0)
  stride: float = 2 / 3
  scales: tuple[float, ...] = (1.0,)
  flip: bool = False
  crf: crf_settings.CRF | None = None
  dropout_samples: int = 0

  def __post_init__(self):
    if self.mode not in MODES:
      raise unknown_name("eval.mode", self.mode, MODES)
    if not self.scales or not all(0 < s < math.inf for s in self.scales):
      raise UserError(
        f"eval.scales={self.scales}: expected one or more positive, finite "
        "numbers"
      )
    if not 0 < self.stride <= 1:
      raise UserError(
        f"eval.stride={self.stride}: expected a share of the window, greater "
        "than 0 and at most 1"
      )
    if self.dropout_samples < 0:
      raise UserError(
        f"eval.dropout_samples={self.dropout_samples}: expected 0 or more; a "
        "usual number is 40"
      )

  def __str__(self) -> str:
    """Describes the settings in one line, for reports of scores."""
    parts = [self.mode]
    if self.mode == "sliding":
      h, w = self.window
      parts = [f"sliding {h}x{w}, step {self.stride:.2f} of the window"]
    scales = ", ".join(f"{scale:g}" for scale in self.scales)
    plural = "s" if len(self.scales) > 1 else ""
    parts.append(f"scale{plural} {scales}")
    parts.append("with mirror image" if self.flip else "not mirrored")
    if self.dropout_samples:
      parts.append(f"mean of {self.dropout_samples} dropout samples")
    if self.crf is not None:
      parts.append(str(self.crf))
    return "; ".join(parts)


def create(config: ConfigDict) -> Inference:
  """Builds the settings of `config.eval`.

  Sliding windows have the size of the training crop, `config.augment.crop`.
  """
  return Inference(
    mode=config.eval.mode,
    window=tuple(config.augment.crop),
    stride=config.eval.stride,
    scales=tuple(config.eval.scales),
    flip=config.eval.flip,
    crf=crf_settings.parse(config.eval.crf),
    dropout_samples=config.eval.dropout_samples,
  )


def predict_logits(
  model: nn.Module, variables: Any, image: Images, inference: Inference
) -> Logits:
  """Applies a network to normalised images.

  Args:
    model: The network.
    variables: Variables of the network.
    image: Normalised images.
    inference: Views to average over. Its CRF is not applied, because it needs
      the colours of the images; `make_predict_logits` applies it.

  Returns:
    Values for each pixel and class, float32, at the size of `image`. They are
    the logits of the network if nothing is averaged, and otherwise the
    logarithm of the averaged probabilities.
  """

  def network(x):
    if not inference.dropout_samples:
      return model.apply(variables, x, train=False)["logits"]
    # A constant key makes evaluations repeatable.
    mean, _ = monte_carlo(
      model,
      variables,
      x,
      key=jax.random.key(0),
      samples=inference.dropout_samples,
    )
    return _log(mean)

  views = [
    _at_scale(network, image, scale, inference, mirrored)
    for scale in inference.scales
    for mirrored in ((False, True) if inference.flip else (False,))
  ]
  if len(views) == 1:
    return views[0]
  return _log(sum(jax.nn.softmax(view) for view in views) / len(views))


def make_predict_logits(
  model: nn.Module,
  task: Task,
  inference: Inference,
  mesh: jax.sharding.Mesh | None = None,
) -> Callable[[Any, jax.Array], jax.Array]:
  """Returns a function (variables, uint8 images) -> logits, to be jitted.

  Args:
    model: The network.
    task: Task whose `normalise` prepares the images.
    inference: Settings of inference.
    mesh: Devices that images are split over; None for one device.
  """

  def logits(variables: Any, image: UInt8[Array, "n h w 3"]) -> Logits:
    result = predict_logits(model, variables, task.normalise(image), inference)
    if inference.crf is None:
      return result
    return _refine(result, image, inference.crf, mesh)

  return logits


def _refine(logits, image, crf: crf_settings.CRF, mesh):
  """Returns the logarithm of the probabilities that a CRF refines."""
  if logits.ndim == 2:
    raise UserError(
      "eval.crf is for networks that label pixels; this one classifies images: "
      "use eval.crf=''"
    )
  refine = functools.partial(mean_field, crf=crf)
  if mesh is not None:
    # The CRF treats images separately, so each device refines its own.
    split = sharding.batch_split(mesh).spec
    refine = jax.shard_map(
      refine, mesh=mesh, in_specs=split, out_specs=split, check_vma=False
    )
  log_probability = jax.nn.log_softmax(logits)
  return refine(jnp.maximum(log_probability, np.log(MIN_PROBABILITY)), image)


def on_canvas(
  logits: Logits, size: Int[Array, "n 2"], canvas: tuple[int, int]
) -> Float[Array, "n *placed k"]:
  """Resizes the logits of whole images to the areas of their labels.

  The result is bilinear, with half-pixel centres.

  Args:
    logits: Logits at the size of the network's input. Those of a network that
      classifies images are returned unchanged.
    size: Height and width of the area of each label at the top left of the
      canvas; 0 for examples that pad a batch.
    canvas: Height and width of the canvas, at least those of `logits`.

  Returns:
    Logits of the size of the canvas. The values outside an area are finite, but
    have no meaning.
  """
  if logits.ndim == 2:
    return logits
  shape = logits.shape[1:3]

  def pad(x):
    rest = [(0, c - s) for c, s in zip(canvas, shape, strict=True)]
    return jnp.pad(x, ((0, 0), *rest, (0, 0)))

  @jax.vmap
  def resize(x, area):
    for axis in (0, 1):
      # Position (i + 1/2) in / out - 1/2 as a fraction of integers.
      i, out = jnp.arange(canvas[axis]), jnp.maximum(area[axis], 1)
      at = rational_taps((2 * i + 1) * shape[axis] - out, 2 * out, shape[axis])
      x = interpolate(x, at, axis)
    return x

  fits = (size == jnp.asarray(shape)) | (size == 0)
  return jax.lax.cond(jnp.all(fits), pad, lambda x: resize(x, size), logits)


def ids_at_size(
  logits: Float[np.ndarray, "h w k"], size: tuple[int, int]
) -> Integer[np.ndarray, "{size[0]} {size[1]}"]:
  """Resizes logits bilinearly and returns the class ids, on the host.

  It works in stripes of rows, so that an image of any size fits in memory.
  """
  ids = np.empty(size, np.uint8 if logits.shape[-1] <= 256 else np.uint16)
  if tuple(logits.shape[:2]) == tuple(size):
    return logits.argmax(axis=-1).astype(ids.dtype)
  down, across = (
    taps(source_positions(a, b, align_corners=False), a, dtype=np.float32)
    for a, b in zip(logits.shape[:2], size, strict=True)
  )
  stripe = max(STRIPE // (size[1] * logits.shape[2]), 1)
  for start in range(0, size[0], stripe):
    rows = slice(start, start + stripe)
    x = interpolate(logits, down.part(rows), axis=0)
    x = interpolate(x, across, axis=1)
    ids[rows] = x.argmax(axis=-1)
  return ids


def _at_scale(
  network, image, scale: float, inference: Inference, mirrored: bool
):
  """Applies the network to resized images; returns logits at their own size."""
  size = image.shape[1:3]
  scaled = tuple(max(round(side * scale), 1) for side in size)
  if scale > 1 and math.prod(scaled) > MAX_PIXELS:
    raise UserError(
      f"eval.scales: {scale:g} enlarges images of {size[0]}x{size[1]} to "
      f"{scaled[0]}x{scaled[1]} pixels, which no memory holds; expected "
      f"factors below {math.sqrt(MAX_PIXELS / math.prod(size)):.2g}"
    )
  x = resize_bilinear(image, scaled, align_corners=False)
  if mirrored:
    x = x[:, :, ::-1]
  if inference.mode == "sliding":
    logits = _in_windows(network, x, inference)
  else:
    logits = network(x)
  if logits.ndim == 2:
    return logits  # The network classifies images: there is nothing to resize.
  if mirrored:
    logits = logits[:, :, ::-1]
  return resize_bilinear(logits, size, align_corners=False)


def window_starts(size: int, window: int, stride: float) -> list[int]:
  """Returns the first pixel of each window along an axis.

  Args:
    size: Length of the axis.
    window: Length of a window. The last window ends at the end of the axis.
    stride: Step of the windows as a share of their length. The step is rounded
      up, as in semseg, the code of PSPNet's author.
  """
  # Rounding errors of the product, such as 100 * 0.07 > 7, add no pixel.
  step = max(math.ceil(window * stride - 1e-6), 1)
  last = max(size - window, 0)
  return [*range(0, last, step), last]


def _in_windows(network, image, inference: Inference):
  """Returns the log of the mean probability over the windows at each pixel."""
  height, width = image.shape[1:3]
  window, stride = inference.window, inference.stride
  part = jax.ShapeDtypeStruct(
    (image.shape[0], *window, image.shape[3]), image.dtype
  )
  output = jax.eval_shape(network, part)
  if output.ndim == 2:
    raise UserError(
      "eval.mode='sliding' is for networks that label pixels; this one "
      "classifies images: use eval.mode='whole'"
    )
  # An image smaller than the window is padded with zeros, the mean colour.
  missing = [
    max(w - s, 0) for w, s in zip(window, (height, width), strict=True)
  ]
  image = jnp.pad(image, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
  starts = [
    (y, x)
    for y in window_starts(height, window[0], stride)
    for x in window_starts(width, window[1], stride)
  ]
  if len(starts) == 1:
    return network(image)[:, :height, :width]
  windows = np.zeros((1, *image.shape[1:3], 1), np.float32)
  for y, x in starts:
    windows[:, y : y + window[0], x : x + window[1]] += 1

  def add(total, start):
    corner = (0, start[0], start[1], 0)
    part = jax.lax.dynamic_slice(
      image, corner, (image.shape[0], *window, image.shape[3])
    )
    p = jax.nn.softmax(network(part))
    p += jax.lax.dynamic_slice(total, corner, p.shape)
    return jax.lax.dynamic_update_slice(total, p, corner), None

  total = jnp.zeros((*image.shape[:3], output.shape[-1]), jnp.float32)
  # With a scan, the network is compiled once for all windows.
  total, _ = jax.lax.scan(add, total, jnp.asarray(starts))
  return _log(total / windows)[:, :height, :width]


def _log(probability):
  """Returns the logarithm of a probability that may be 0."""
  return jnp.log(jnp.maximum(probability, jnp.finfo(jnp.float32).tiny))
