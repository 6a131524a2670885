"""The values that training builds from a configuration."""

import jax
import pytest

from jaxseg import data, models, sharding
from jaxseg.config import with_data
from jaxseg.errors import UserError
from jaxseg.runs import network
from jaxseg.training import setup


@pytest.fixture
def config(tiny_folder):
  c = with_data("folder")
  c.data.update(path=str(tiny_folder), loader="resident")
  c.train.batch_size = c.eval.batch_size = 4
  return c


def test_the_configuration_is_completed_from_the_data_set(config):
  dataset = data.open(config)
  done = setup.completed(config, dataset)
  assert done.data.class_names == ("class_0", "class_1", "class_2")
  assert done.data.palette == dataset.palette
  assert (done.data.mean, done.data.std) == (dataset.mean, dataset.std)
  # The images have up to 24x32 pixels.
  assert done.data.canvas == done.augment.crop == (32, 32)
  assert done.is_locked
  assert config.data.class_names == ()
  assert setup.completed(done, dataset) == done


def test_class_weights_are_computed_unless_given(config):
  config.loss.balance = "median_frequency"
  dataset = data.open(config)
  done = setup.completed(config, dataset)
  assert done.loss.class_weights == dataset.median_frequency()
  config.loss.class_weights = (1.0, 2.0, 3.0)
  done = setup.completed(config, dataset)
  assert done.loss.class_weights == (1.0, 2.0, 3.0)


def test_a_misspelt_balance_says_which_exist(config):
  config.loss.balance = "median"
  mesh = sharding.make_mesh(jax.devices()[:1])
  with pytest.raises(UserError, match="'median'.*median_frequency"):
    setup.create(config, mesh)


def test_the_description_says_what_was_built(config):
  with config.unlocked():
    config.model.backbone = {"name": "resnet18", "width": 16}
    config.model.backbone.output_stride = 4
  config.words = ("folder", "small")
  params = {"a": jax.ShapeDtypeStruct((100, 12), "float32")}
  assert setup.describe(config, params) == (
    "pspnet (small: resnet18 of width 16, output stride 4), 1,200 parameters, "
    "on folder"
  )


def test_a_network_that_cannot_be_traced_names_its_fields(config):
  config.data.class_names = ("a", "b")
  with config.unlocked():
    config.model = models.fields("pspnet", backbone="resnet18")
  config.model.backbone.stage_sizes = (1, 1)
  config.augment.crop = (384, 384)
  with pytest.raises(UserError) as error:
    network.trace(network.create_model(config), config)
  line = str(error.value)
  assert "\n" not in line and "384x384" in line
  assert line.endswith("the paper's: model.backbone.stage_sizes=(1, 1)")


@pytest.mark.parametrize(
  "name, task, expected",
  [
    ("segnet_basic", "classification", "expected 'segmentation'"),
    ("classifier", "segmentation", "expected 'classification'"),
    ("segnet_basic", "segmentation", "did you mean 'logits'"),
  ],
)
def test_outputs_must_fit_task_and_loss(config, name, task, expected):
  config.data.class_names = ("a", "b")
  config.task = task
  config.augment.crop = (384, 384)
  with config.unlocked():
    config.model = models.fields(name)
    config.loss.heads.logit = 1.0
  with pytest.raises(UserError, match=expected):
    network.trace(network.create_model(config), config)
