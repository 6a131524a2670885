"""`shapes` cannot be solved from single colours or from 15x15 pixels.

PSPNet reaches a mIoU of 0.80 and more (configs/pspnet.py). The best function of
a pixel's colour stays below 0.35, whatever network computes it, and a network
that sees 15x15 pixels stays 0.1 below PSPNet.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg.data import shapes
from jaxseg.layers.conv import Conv, ConvNormAct
from jaxseg.layers.resize import resize_bilinear

CLASSES = len(shapes.CLASS_NAMES)
PSPNET = 0.80


@functools.cache
def _split(split: str, count: int):
  examples = zip(*(shapes.draw(split, i) for i in range(count)), strict=True)
  return tuple(np.stack(arrays) for arrays in examples)


def _miou(label: np.ndarray, predicted: np.ndarray) -> float:
  keep = label != shapes.IGNORE_LABEL
  truth, predicted = label[keep].astype(int), predicted[keep].astype(int)
  pairs = np.bincount(truth * CLASSES + predicted, minlength=CLASSES**2)
  confusion = pairs.reshape(CLASSES, CLASSES)
  hits = np.diag(confusion)
  return np.mean(hits / (confusion.sum(0) + confusion.sum(1) - hits))


def _colour_cells(images: np.ndarray, bits: int) -> np.ndarray:
  cells = (images >> (8 - bits)).astype(int)
  return cells @ (1 << (2 * bits), 1 << bits, 1)


@pytest.mark.slow
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("bits", [3, 4])
def test_no_function_of_a_colour_reaches_035(bits, power):
  """Each colour has its most frequent class, with and without class weights."""
  images, labels = _split("train", 600)
  cells, keep = _colour_cells(images, bits), labels != shapes.IGNORE_LABEL
  pairs = cells[keep] * CLASSES + labels[keep]
  counts = np.bincount(pairs, minlength=CLASSES << (3 * bits))
  counts = counts.reshape(-1, CLASSES).astype(float)
  best = np.argmax(counts / counts.sum(axis=0) ** power, axis=1)
  images, labels = _split("val", 200)
  assert _miou(labels, best[_colour_cells(images, bits)]) < 0.35


class Pixelwise(nn.Module):
  """A network of 1x1 convolutions."""

  @nn.compact
  def __call__(self, x, *, train):
    for i in range(3):
      x = ConvNormAct(64, 1, name=f"conv{i}")(x, train=train)
    return Conv(CLASSES, 1, name="classifier")(x)


class Local(nn.Module):
  """A network of 3x3 convolutions, one of them strided.

  Their receptive fields are 3, 5, 9 and 13 pixels, and 15 after resizing.
  """

  @nn.compact
  def __call__(self, x, *, train):
    size = x.shape[1:3]
    for i, (features, strides) in enumerate(
      ((32, 1), (32, 2), (64, 1), (64, 1))
    ):
      x = ConvNormAct(features, strides=strides, name=f"conv{i}")(
        x, train=train
      )
    x = ConvNormAct(64, 1, name="mix")(x, train=train)
    x = Conv(CLASSES, 1, name="classifier")(x)
    return resize_bilinear(x, size, align_corners=False)


@pytest.mark.slow
@pytest.mark.parametrize(("net", "sees"), [(Pixelwise(), 1), (Local(), 15)])
def test_receptive_fields_of_the_networks(net, sees):
  x = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
  variables = net.init(jax.random.key(1), x, train=False)

  @jax.jit
  @jax.grad
  def grad(x, y):
    out = net.apply(variables, x, train=False)
    return jnp.abs(jax.lax.dynamic_slice_in_dim(out, y, 1, 1)[:, 0, 30]).sum()

  spans = []
  for y in (30, 31):  # An even and an odd position on the strided grid.
    rows = np.nonzero(np.abs(grad(x, y)).sum((0, 2, 3)))[0]
    spans.append(rows.max() - rows.min() + 1)
  assert max(spans) == sees


def _train(net: nn.Module, steps: int, batch: int = 16) -> float:
  """Trains as configs/pspnet.py does; returns the validation mIoU."""
  images, labels = (jnp.asarray(a) for a in _split("train", 2000))
  mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
  schedule = optax.warmup_cosine_decay_schedule(0, 4e-3, 50, steps)
  optimizer = optax.adamw(schedule, weight_decay=0.01)

  def logits(variables, image, **kwargs):
    return net.apply(variables, (image - mean) / std, **kwargs)

  @jax.jit
  def step(params, stats, state, index, flip):
    image, label = images[index], labels[index].astype(jnp.int32)
    image = jnp.where(flip[:, None, None, None], image[:, :, ::-1], image)
    label = jnp.where(flip[:, None, None], label[:, :, ::-1], label)
    keep = label != shapes.IGNORE_LABEL

    def loss(params):
      out, update = logits(
        {"params": params, "batch_stats": stats},
        image,
        train=True,
        mutable=["batch_stats"],
      )
      each = optax.softmax_cross_entropy_with_integer_labels(out, label * keep)
      return (each * keep).sum() / keep.sum(), update["batch_stats"]

    grads, moved = jax.grad(loss, has_aux=True)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), moved, state

  variables = net.init(jax.random.key(0), images[:1] / 255, train=False)
  params, stats = variables["params"], variables["batch_stats"]
  state = optimizer.init(params)
  rng = np.random.default_rng(0)
  for _ in range(steps):
    index = rng.integers(0, len(images), batch)
    flip = rng.random(batch) < 0.5
    params, stats, state = step(params, stats, state, index, flip)

  @jax.jit
  def predict(image):
    trained = {"params": params, "batch_stats": stats}
    return logits(trained, image, train=False).argmax(-1)

  images, labels = _split("val", 200)
  predicted = [predict(part) for part in np.split(images, 8)]
  return _miou(labels, np.concatenate(predicted))


@pytest.mark.slow
def test_one_pixel_is_not_enough():
  assert _train(Pixelwise(), steps=300) < 0.35


@pytest.mark.slow
def test_fifteen_pixels_are_not_enough():
  miou = _train(Local(), steps=1100)
  assert 0.3 < miou < PSPNET - 0.1
