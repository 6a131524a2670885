"""U-Net's weight map against its formula, computed pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import losses
from jaxseg.errors import UserError

IGNORE = 255


def border_weights(label, **options):
  options = {"ignore_label": IGNORE, **options}
  return np.asarray(losses.border_weights(jnp.asarray(label), **options))


def three_cells():
  """Returns cells of two classes; two of one class share only a corner."""
  label = np.zeros((16, 24), np.int32)
  label[1:7, 2:9] = 1
  label[7:12, 9:15] = 1
  label[2:9, 17:23] = 2
  label[13:, :4] = IGNORE
  return label, [
    (slice(1, 7), slice(2, 9)),
    (slice(7, 12), slice(9, 15)),
    (slice(2, 9), slice(17, 23)),
  ]


@pytest.mark.parametrize(("w0", "std"), [(10.0, 5.0), (3.0, 1.5)])
def test_weights_are_the_formula(w0, std):
  label, cells = three_cells()
  expected = np.zeros(label.shape)
  for y, x in np.argwhere(label == 0):
    distances = []
    for rows, columns in cells:
      a, b = np.mgrid[rows, columns]
      distances.append(np.sqrt((a - y) ** 2 + (b - x) ** 2).min())
    d1, d2, _ = sorted(distances)
    expected[y, x] = w0 * np.exp(-((d1 + d2) ** 2) / (2 * std**2))
  found = border_weights(label, w0=w0, std=std)
  np.testing.assert_allclose(found, expected, atol=1e-6 * w0, rtol=1e-5)
  np.testing.assert_array_equal(found[label != 0], 0)


def test_a_narrow_gap_weighs_most():
  label = np.zeros((5, 20), np.int32)
  label[:, :6] = label[:, 7:10] = label[:, 16:] = 1
  weights = border_weights(label, std=2.0)
  assert weights.argmax() % 20 == 6
  # One pixel off both: d1 = d2 = 1.
  np.testing.assert_allclose(weights[2, 6], 10 * np.exp(-4 / 8), rtol=1e-6)


def test_one_cell_has_no_border():
  label = np.zeros((8, 8), np.int32)
  label[2:4] = 1
  assert not border_weights(label).any()
  assert not border_weights(np.zeros((8, 8), np.int32)).any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_adds_them_to_the_class_weights(smoothing):
  label, _ = three_cells()
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, *label.shape, 3)).astype(np.float32)
  label = np.stack([label, label[::-1]])
  class_weights = np.array([0.5, 2.0, 1.5])
  added = np.stack([border_weights(one, w0=4.0, std=3.0) for one in label])

  log_p = logits - np.log(np.exp(logits.astype(float)).sum(-1, keepdims=True))
  of_class = class_weights + added[..., None]
  valid = label != IGNORE
  is_class = np.eye(3)[np.where(valid, label, 0)]
  # The smoothed part weighs each class by its own weight, as torch does.
  share = (1 - smoothing) * is_class + smoothing / 3
  cost = -np.sum(share * of_class * log_p, axis=-1)
  own = np.sum(is_class * of_class, axis=-1)

  loss = losses.HeadsLoss(
    class_weights=tuple(class_weights),
    label_smoothing=smoothing,
    border_weight=4.0,
    border_std=3.0,
  )
  total, weight = jax.jit(
    lambda x, y: loss({"logits": x}, y, ignore_label=IGNORE)
  )(jnp.asarray(logits), jnp.asarray(label))
  np.testing.assert_allclose(total, np.sum(cost[valid]), rtol=1e-5)
  np.testing.assert_allclose(weight, np.sum(own[valid]), rtol=1e-5)


def test_whole_images_have_no_borders():
  with pytest.raises(UserError, match="leave it at 0"):
    losses.HeadsLoss(border_weight=10.0)(
      {"logits": jnp.zeros((2, 3))},
      jnp.zeros(2, jnp.int32),
      ignore_label=IGNORE,
    )
