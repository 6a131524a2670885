"""Scores of a split equal a plain NumPy evaluation, pixel by pixel."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import sharding
from jaxseg.evaluation import scoring
from jaxseg.evaluation.inference import Inference
from jaxseg.tasks import tables
from jaxseg.tasks.rand_score import THRESHOLDS, rand_f_scores
from jaxseg.tasks.segmentation import Segmentation

NAMES = ("sky", "road", "tree", "nowhere")
IGNORE = 255


class Pixelwise(nn.Module):
  """A network of one 1x1 convolution."""

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Dense(
      len(NAMES), kernel_init=nn.initializers.normal(2.0), name="dense"
    )(image)
    return {"logits": x}


TASK = Segmentation(NAMES, mean=(0.5,) * 3, std=(0.25,) * 3)
TWO = Segmentation(("a", "b"), mean=(0.5,) * 3, std=(0.25,) * 3)


def setup():
  model = Pixelwise()
  x = jnp.zeros((1, 2, 2, 3))
  variables = model.init(jax.random.key(0), x, train=False)
  # The last class is never predicted, and `split` never has it.
  variables["params"]["dense"]["bias"] = jnp.array([0.1, 0.2, 0.3, -1e3])
  return model, variables


def split(n=11, size=(6, 9), seed=0):
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (n, *size, 3), np.uint8)
  label = rng.integers(0, 3, (n, *size)).astype(np.uint8)
  label[rng.random(label.shape) < 0.25] = IGNORE
  return image, label


def batches(image, label, batch_size):
  """Yields batches like a data set; ignored examples fill the last one."""
  n = len(image)
  for start in range(0, n, batch_size):
    part = np.s_[start : start + batch_size]
    missing = batch_size - len(image[part])
    rest = ((0, missing), (0, 0), (0, 0))
    yield {
      "image": np.pad(image[part], (*rest, (0, 0)), constant_values=128),
      "label": np.pad(label[part], rest, constant_values=IGNORE),
      "size": np.full((batch_size, 2), image.shape[1:3], np.int32),
      "index": np.arange(start, start + batch_size, dtype=np.int32),
    }


def plain(variables, image, label):
  """Returns the scores, computed pixel by pixel in float64."""
  dense = variables["params"]["dense"]
  x = (image / 255 - 0.5) / 0.25
  logits = x @ np.asarray(dense["kernel"], np.float64) + dense["bias"]
  confusion, loss, count = np.zeros((4, 4), np.int64), 0.0, 0
  pixels = zip(logits.reshape(-1, 4), label.ravel(), strict=True)
  for z, y in pixels:
    if y != IGNORE:
      confusion[y, z.argmax()] += 1
      loss += np.log(np.exp(z - z[y]).sum())
      count += 1
  iou = [
    confusion[c, c]
    / (confusion[c].sum() + confusion[:, c].sum() - confusion[c, c])
    for c in range(3)
  ]
  accuracy = [confusion[c, c] / confusion[c].sum() for c in range(3)]
  return {
    "confusion": confusion,
    "loss": loss / count,
    "miou": np.mean(iou),
    "pixel_accuracy": np.trace(confusion) / count,
    "mean_accuracy": np.mean(accuracy),
    **{f"iou/{name}": v for name, v in zip(NAMES, iou, strict=False)},
    **{f"accuracy/{name}": v for name, v in zip(NAMES, accuracy, strict=False)},
    "iou/nowhere": np.nan,
    "share/sky": confusion[0].sum() / count,
  }


def scored(model, variables, batches, task=TASK):
  """Returns the scores of all batches, on one device."""
  count_step = scoring.make_count_step(model, task, Inference())
  return scoring.score(count_step, variables, batches, task, progress=False)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 16])
def test_any_batch_size_gives_the_plain_evaluation(batch_size):
  model, variables = setup()
  image, label = split()
  scores = scored(model, variables, batches(image, label, batch_size))
  expected = plain(variables, image, label)
  np.testing.assert_array_equal(scores["confusion"], expected["confusion"])
  for key, value in expected.items():
    np.testing.assert_allclose(scores[key], value, rtol=1e-5, err_msg=key)


def test_rand_score_is_the_mean_over_the_images_at_the_best_threshold():
  model, variables = setup()
  image, label = split(5)
  task = dataclasses.replace(TASK, rand=True)
  scores = scored(model, variables, batches(image, label, 4), task)
  logits = model.apply(
    variables, jnp.asarray((image / 255 - 0.5) / 0.25), train=False
  )["logits"]
  added, count = rand_f_scores(
    jnp.asarray(label), 1 - jax.nn.softmax(logits)[..., 0], ignore_label=IGNORE
  )
  assert count == 5
  mean = np.asarray(added) / 5
  np.testing.assert_allclose(scores["rand_f"], mean.max(), rtol=1e-5)
  assert scores["rand_threshold"] == THRESHOLDS[mean.argmax()]
  assert f"Rand F {mean.max():.4f}" in tables.headline(scores)
  assert "Rand F" in tables.format_table(scores, NAMES).splitlines()[-1]


def test_a_mesh_has_the_same_scores():
  model, variables = setup()
  image, label = split()
  mesh = sharding.make_mesh()
  size = 4 * mesh.size
  scores = scoring.score(
    scoring.make_count_step(model, TASK, Inference(), mesh),
    variables,
    sharding.device_batches(batches(image, label, size), mesh),
    TASK,
    progress=False,
  )
  expected = plain(variables, image, label)
  np.testing.assert_array_equal(scores["confusion"], expected["confusion"])
  np.testing.assert_allclose(scores["loss"], expected["loss"], rtol=1e-5)


def test_absent_convention_is_passed_on():
  model, variables = setup()
  image, label = split()
  run = {
    absent: scored(
      model,
      variables,
      batches(image, label, 4),
      dataclasses.replace(TASK, absent=absent),
    )["miou"]
    for absent in ("skip", "zero", "one")
  }
  np.testing.assert_allclose(run["zero"], run["skip"] * 3 / 4)
  np.testing.assert_allclose(run["one"], (run["skip"] * 3 + 1) / 4)


def test_the_next_step_is_dispatched_before_the_last_is_read():
  events = []

  class Count:
    """Counts that record when they are read."""

    def __init__(self, step):
      self.step = step

    def __array__(self, dtype=None, copy=None):
      events.append(f"read {self.step}")
      return np.eye(2, dtype=np.int32)

  def eval_step(variables, batch):
    events.append(f"start {batch['number']}")
    counts = {
      "confusion": Count(batch["number"]),
      "loss_sum": 1.0,
      "loss_weight": 2.0,
    }
    return counts, batch["number"]

  scores = scoring.score(
    eval_step, {}, ({"number": i} for i in range(3)), TWO, progress=False
  )
  assert events == [
    "start 0",
    "start 1",
    "read 0",
    "start 2",
    "read 1",
    "read 2",
  ]
  assert scores["loss"] == 0.5 and scores["miou"] == 1.0


def test_counts_add_up_beyond_int32():
  def eval_step(variables, batch):
    confusion = np.diag([2**31 - 1, 2**31 - 1]).astype(np.int32)
    return {"confusion": confusion, "loss_sum": 0.0, "loss_weight": 1.0}, None

  scores = scoring.score(eval_step, {}, [{}] * 5, TWO, progress=False)
  assert scores["confusion"].sum() == 10 * (2**31 - 1)


def test_an_empty_split_is_undefined_not_an_error():
  scores = scoring.score(dict, {}, [], TWO, progress=False)
  assert np.isnan(scores["miou"]) and np.isnan(scores["loss"])
  assert tables.flat(scores) == {}


def test_flat_scores_are_what_a_log_can_hold():
  model, variables = setup()
  image, label = split()
  scores = scored(model, variables, batches(image, label, 4))
  flat = tables.flat(scores)
  assert all(type(v) is float and np.isfinite(v) for v in flat.values())
  assert {"loss", "miou", "pixel_accuracy", "mean_accuracy"} <= flat.keys()
  assert "iou/sky" in flat and "iou/nowhere" not in flat


def test_table_has_a_line_a_class():
  model, variables = setup()
  image, label = split()
  scores = scored(model, variables, batches(image, label, 4))
  table = tables.format_table(scores, NAMES).splitlines()
  assert table[0].split() == [
    "class",
    "IoU",
    "%",
    "accuracy",
    "%",
    "share",
    "%",
  ]
  rows = {line.split()[0]: line.split()[1:] for line in table}
  assert rows["nowhere"] == ["-", "-", "0.00"]
  assert rows["number"] == "of classes 3 of 4 3 of 4".split()
  assert "over 3 of 4 classes" in table[-1]
  complete = tables.format_table(scores, NAMES[:3])
  assert "number of classes" not in complete and "over 3" not in complete
  assert rows["sky"][0] == f"{100 * scores['iou/sky']:.2f}"
  assert max(map(len, table)) < 80
