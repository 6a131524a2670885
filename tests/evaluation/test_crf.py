"""A dense CRF refines the predictions and the scores of a network."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg import sharding
from jaxseg.errors import UserError
from jaxseg.evaluation import inference, scoring
from jaxseg.layers.crf_settings import CRF, SETTINGS, parse
from jaxseg.layers.dense_crf import mean_field
from jaxseg.tasks.segmentation import Segmentation

# The exact filter compiles quickly.
TEXT = "deeplab_v1,iterations=2,bilateral_std=4,colour_std=40,filter=exact"
NAMES = ("dark", "light")


class Pixelwise(nn.Module):
  """Classifies pixels as dark or light by a 1x1 convolution."""

  @nn.compact
  def __call__(self, image, *, train):
    init = nn.initializers.normal(2.0)
    x = nn.Dense(len(NAMES), kernel_init=init, name="dense")(image)
    return {"logits": x}


class Classifier(nn.Module):
  """Classifies whole images: one row of logits per image."""

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Dense(len(NAMES), name="dense")(image)
    return {"logits": x.mean(axis=(1, 2))}


TASK = Segmentation(NAMES, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def setup(crf=TEXT, model=None):
  """Returns inference with a CRF, a network, and its variables."""
  c = configs.base()
  c.eval.crf = crf
  model = model or Pixelwise()
  x = jnp.zeros((1, 2, 2, 3))
  variables = model.init(jax.random.key(0), x, train=False)
  return inference.create(c), model, variables


def logits_of(how, model, variables, image):
  return inference.make_predict_logits(model, TASK, how)(variables, image)


def images(n=2, size=(7, 9)):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.integers(0, 256, (n, *size, 3), np.uint8))


def test_there_is_none_by_default():
  assert configs.base().eval.crf == ""
  assert inference.create(configs.base()).crf is None


def test_logits_are_those_of_mean_field_on_the_bytes():
  how, model, variables = setup()
  image = images()
  got = logits_of(how, model, variables, image)
  logits = logits_of(inference.Inference(), model, variables, image)
  # Probabilities of at least 1e-5, as pydensecrf's unary_from_softmax has it.
  p = jnp.maximum(jax.nn.softmax(logits), 1e-5)
  expected = mean_field(jnp.log(p), image, parse(TEXT))
  np.testing.assert_allclose(got, expected, atol=1e-4)
  assert not np.allclose(got, jax.nn.log_softmax(logits), atol=1e-2)


def test_it_refines_the_average_over_views():
  how, model, variables = setup()
  image = images()
  plain = logits_of(how, model, variables, image)
  # The mirrored image has the same logits, because the convolution is 1x1.
  how = dataclasses.replace(how, flip=True)
  mirrored = logits_of(how, model, variables, image)
  np.testing.assert_allclose(mirrored, plain, atol=1e-4)


def test_a_mesh_scores_what_one_device_scores():
  """Each of eight devices has one image."""
  how, model, variables = setup()
  image = images(n=8)
  label = jnp.asarray(np.random.default_rng(1).integers(0, 2, (8, 7, 9)))
  batch = {
    "image": np.asarray(image),
    "label": np.asarray(label, np.uint8),
    "size": np.array(4 * [(7, 9)] + 3 * [(6, 8)] + [(0, 0)], np.int32),
  }
  one, one_ids = scoring.make_count_step(model, TASK, how)(variables, batch)
  mesh = sharding.make_mesh()
  assert mesh.size == 8
  many, many_ids = scoring.make_count_step(model, TASK, how, mesh)(
    jax.device_put(variables, sharding.replicated(mesh)),
    sharding.global_batch(batch, mesh),
  )
  np.testing.assert_array_equal(many["confusion"], one["confusion"])
  np.testing.assert_array_equal(many_ids, one_ids)
  np.testing.assert_allclose(many["loss_sum"], one["loss_sum"], rtol=1e-5)


def test_its_settings_are_reported():
  how, _, _ = setup("deeplab_v2,iterations=7")
  assert how.crf.bilateral_std == SETTINGS["deeplab_v2"].bilateral_std
  assert "iterations=7" in str(how) and "bilateral_std=67" in str(how)
  assert "CRF" not in str(inference.Inference())


def test_an_unknown_name_is_refused():
  with pytest.raises(UserError, match="did you mean 'deeplab_v2'"):
    setup("deplab_v2")


def test_a_classifier_of_images_is_refused():
  how, model, variables = setup(model=Classifier())
  with pytest.raises(UserError, match="eval.crf is for networks that label"):
    logits_of(how, model, variables, images())


def test_inference_with_a_crf_is_hashable():
  assert hash(inference.Inference(crf=CRF())) is not None
