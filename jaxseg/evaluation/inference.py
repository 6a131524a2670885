"""How a network is applied to an image: whole, in windows, at many scales.

Everything here is a pure function of static shapes. Where several views of an
image are combined (overlapping windows, scales, mirror images) their class
probabilities are averaged, as the papers do (PSPNet Sec. 5.2, DeepLab), and
the result is handed on as the logarithm of that mean: a softmax of it gives
the probabilities back, an argmax the class, so that callers need not know.
A dense CRF, where there is one, refines these probabilities with the colours
of the image (DeepLab, DeconvNet), and log Q is handed on.
"""

from collections.abc import Callable
import dataclasses
import functools
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
from jaxseg.layers.bilinear import interpolate, taps
from jaxseg.layers.dense_crf import mean_field
from jaxseg.layers.monte_carlo import monte_carlo
from jaxseg.layers.resize import resize_bilinear, source_positions
from jaxseg.tasks.segmentation import Segmentation
from jaxseg.types import Images

# One vector a pixel, or one an image if the network classifies images.
Logits = Float[Array, "n *pixels k"]

MODES = ("whole", "sliding")
# Least probability a CRF is given, as in pydensecrf.utils.unary_from_softmax.
CERTAIN = 1e-5
STRIPE = 2**23  # numbers that `ids_at_size` resizes at a time


@dataclasses.dataclass(frozen=True)
class Inference:
  """How to apply a network; hashable.

  Attributes:
    mode: "whole" image at once, or "sliding" windows.
    window: height, width of a sliding window.
    stride: step of the windows as a share of their sides.
    scales: inputs are resized by each of these and the results back.
    flip: also apply it to the mirrored image.
    crf: refines the result; None for no CRF.
    dropout_samples: networks drawn by dropout to average over (Bayesian
      SegNet); 0 leaves dropout out.
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
    if not self.scales or min(self.scales) <= 0:
      raise UserError(
        f"eval.scales={self.scales}: expected one or more positive numbers"
      )
    if not 0 < self.stride <= 1:
      raise UserError(
        f"eval.stride={self.stride}: expected a share of the window, above 0 "
        "and at most 1"
      )
    if self.dropout_samples < 0:
      raise UserError(
        f"eval.dropout_samples={self.dropout_samples}: expected 0 or more; 40 "
        "are usual"
      )

  def __str__(self) -> str:
    parts = [self.mode]
    if self.mode == "sliding":
      h, w = self.window
      parts = [f"sliding {h}x{w}, step {self.stride:.2f} of the window"]
    scales = ", ".join(f"{scale:g}" for scale in self.scales)
    plural = "s" if len(self.scales) > 1 else ""
    parts.append(f"scale{plural} {scales}")
    parts.append("mirrored too" if self.flip else "not mirrored")
    if self.dropout_samples:
      parts.append(f"mean of {self.dropout_samples} networks by dropout")
    if self.crf is not None:
      parts.append(str(self.crf))
    return "; ".join(parts)


def create(config: ConfigDict) -> Inference:
  """Reads `config.eval`; sliding windows have the size of the training crop."""
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
  model: nn.Module, variables: Any, image: Images, how: Inference
) -> Logits:
  """Class scores of each pixel, float32, at the size of `image`.

  With one scale, one view and one window these are the network's own logits
  (resized); otherwise the logarithm of averaged probabilities.

  Args:
    model: the network.
    variables: its variables.
    image: normalised images.
    how: what to average over; a CRF needs the colours, so that
      `make_predict_logits` adds it.
  """

  def network(x):
    if not how.dropout_samples:
      return model.apply(variables, x, train=False)["logits"]
    # One key for all images: an answer does not depend on its batch.
    mean, _ = monte_carlo(
      model, variables, x, key=jax.random.key(0), samples=how.dropout_samples
    )
    return _log(mean)

  views = [
    _at_scale(network, image, scale, how, mirrored)
    for scale in how.scales
    for mirrored in ((False, True) if how.flip else (False,))
  ]
  if len(views) == 1:
    return views[0]
  return _log(sum(jax.nn.softmax(view) for view in views) / len(views))


def make_predict_logits(
  model: nn.Module,
  task: Segmentation,
  inference: Inference,
  mesh: jax.sharding.Mesh | None = None,
) -> Callable[[Any, jax.Array], jax.Array]:
  """Returns a function (variables, uint8 images) -> logits, to be jitted.

  Args:
    model: The network.
    task: Normalises the images.
    inference: How the network is applied.
    mesh: The devices that images are split over; None for one device.
  """

  def logits(variables: Any, image: UInt8[Array, "n h w 3"]) -> Logits:
    result = predict_logits(model, variables, task.normalise(image), inference)
    if inference.crf is None:
      return result
    return _refined(result, image, inference.crf, mesh)

  return logits


def _refined(logits, image, crf: crf_settings.CRF, mesh):
  """The logarithm of the CRF's probabilities."""
  if logits.ndim == 2:
    raise UserError(
      "eval.crf is for networks that label pixels; this one classifies images, "
      "use eval.crf=''"
    )
  refine = functools.partial(mean_field, crf=crf)
  if mesh is not None:
    # Images are refined one by one: each device does its own.
    split = sharding.batch_split(mesh).spec
    refine = jax.shard_map(
      refine, mesh=mesh, in_specs=split, out_specs=split, check_vma=False
    )
  log_probability = jax.nn.log_softmax(logits)
  return refine(jnp.maximum(log_probability, np.log(CERTAIN)), image)


def make_predict(
  model: nn.Module,
  task: Segmentation,
  inference: Inference,
  mesh: jax.sharding.Mesh | None = None,
) -> Callable[[Any, jax.Array], jax.Array]:
  """Returns a function (variables, uint8 images) -> class ids, to be jitted.

  The arguments are those of `make_predict_logits`.
  """
  logits = make_predict_logits(model, task, inference, mesh)

  def predict(
    variables: Any, image: UInt8[Array, "n h w 3"]
  ) -> Int[Array, "n *pixels"]:
    return jnp.argmax(logits(variables, image), axis=-1).astype(jnp.int32)

  return predict


def ids_at_size(
  logits: Float[np.ndarray, "h w k"], size: tuple[int, int]
) -> Integer[np.ndarray, "{size[0]} {size[1]}"]:
  """Classes after a bilinear resize of the logits, on the host.

  In stripes of rows, so that an image of any size fits in memory.
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


def _at_scale(network, image, scale: float, how: Inference, mirrored: bool):
  """Logits at the size of `image`, the network seeing it at `scale`."""
  size = image.shape[1:3]
  scaled = tuple(max(round(side * scale), 1) for side in size)
  x = resize_bilinear(image, scaled, align_corners=False)
  x = x[:, :, ::-1] if mirrored else x
  logits = _in_windows(network, x, how) if how.mode == "sliding" else network(x)
  if logits.ndim == 2:
    return logits  # A classifier's: one row an image, nothing to resize.
  logits = logits[:, :, ::-1] if mirrored else logits
  return resize_bilinear(logits, size, align_corners=False)


def window_starts(size: int, window: int, stride: float) -> list[int]:
  """First pixels of windows along an axis; the last one ends at its end."""
  step = max(int(window * stride), 1)
  last = max(size - window, 0)
  return [*range(0, last, step), last]


def _in_windows(network, image, how: Inference):
  """Log of the mean probability over all windows that see a pixel."""
  height, width = image.shape[1:3]
  window = how.window
  # A window larger than the image is filled up with the mean colour.
  missing = [
    max(w - s, 0) for w, s in zip(window, (height, width), strict=True)
  ]
  image = jnp.pad(image, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
  starts = [
    (y, x)
    for y in window_starts(height, window[0], how.stride)
    for x in window_starts(width, window[1], how.stride)
  ]
  if len(starts) == 1:
    return network(image)[:, :height, :width]
  seen = np.zeros((1, *image.shape[1:3], 1), np.float32)
  for y, x in starts:
    seen[:, y : y + window[0], x : x + window[1]] += 1

  def add(total, start):
    corner = (0, start[0], start[1], 0)
    part = jax.lax.dynamic_slice(
      image, corner, (image.shape[0], *window, image.shape[3])
    )
    p = jax.nn.softmax(network(part))
    p += jax.lax.dynamic_slice(total, corner, p.shape)
    return jax.lax.dynamic_update_slice(total, p, corner), None

  part = jax.ShapeDtypeStruct(
    (image.shape[0], *window, image.shape[3]), image.dtype
  )
  output = jax.eval_shape(network, part)
  if output.ndim == 2:
    raise UserError(
      "eval.mode='sliding' is for networks that label pixels; this one "
      "classifies images, use 'whole'"
    )
  total = jnp.zeros((*image.shape[:3], output.shape[-1]), jnp.float32)
  # One compiled window, however many there are.
  total, _ = jax.lax.scan(add, total, jnp.asarray(starts))
  return _log(total / seen)[:, :height, :width]


def _log(probability):
  return jnp.log(jnp.maximum(probability, jnp.finfo(jnp.float32).tiny))
