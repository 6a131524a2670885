"""Builds everything that the training loop uses from a configuration.

Only `create` reads the whole configuration. The loop, the step and everything
below them take the values that it builds.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxseg import data, sharding, tasks, weights
from jaxseg.data.notes import note
from jaxseg.errors import UserError
from jaxseg.evaluation import inference
from jaxseg.evaluation.inference import Inference
from jaxseg.runs.network import create_model, trace
from jaxseg.runs.run import load_run
from jaxseg.tasks.task import Task
from jaxseg.training import optimizers
from jaxseg.training.state import TrainState, create_state


@dataclasses.dataclass(frozen=True)
class LoopOptions:
  """Options of the training loop.

  The fields are those of `config.train`; `jaxseg/config.py` explains them.
  """

  steps: int
  batch_size: int
  log_every: int
  norm_batches: int
  eval_every: int
  checkpoint_every: int
  keep_last: int
  picture_count: int


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything that a training run uses.

  Attributes:
    config: The complete configuration, which the work directory keeps.
    description: Description of the network and data set in one line.
    dataset: The data set, open and checked.
    model: The network.
    task: The task, such as segmentation.
    inference: Settings of inference in evaluation.
    optimizer: Optax transformation.
    learning_rate: Learning rate as a function of the number of updates.
    parts: Number of parts that a batch is computed in, one after the other.
    ema_decay: Decay of the moving average of the variables; 0 for no average.
    seed: Seed of parameters, data order, augmentation and dropout.
    image_size: Height and width of the images that the network trains on.
    options: Options of the training loop.
  """

  config: ConfigDict
  description: str
  dataset: data.Dataset
  model: nn.Module
  task: Task
  inference: Inference
  optimizer: optax.GradientTransformation
  learning_rate: optax.Schedule
  parts: int
  ema_decay: float
  seed: int
  image_size: tuple[int, int]
  options: LoopOptions

  @property
  def image_shape(self) -> tuple[int, int, int, int]:
    """Shape of a batch of one training crop."""
    return (1, *self.image_size, 3)

  def _create_state(self) -> TrainState:
    """Returns a random initial state."""
    return create_state(
      self.model,
      self.optimizer,
      jax.random.key(self.seed),
      self.image_shape,
      ema=self.ema_decay > 0,
    )

  def state_shapes(self, mesh: jax.sharding.Mesh) -> TrainState:
    """Returns the shapes and shardings of a state, without its arrays."""
    sharding_of_all = sharding.replicated(mesh)
    return jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(
        a.shape, a.dtype, sharding=sharding_of_all
      ),
      jax.eval_shape(self._create_state),
    )

  def fresh_state(self, mesh: jax.sharding.Mesh) -> TrainState:
    """Returns a random initial state, created on the devices of the mesh."""
    options = None
    if mesh.devices.flat[0].platform == "cpu":
      # The compiler optimises the random numbers of each parameter, which takes
      # most of its time and does not change them.
      options = {"xla_backend_optimization_level": 1}
    create = jax.jit(
      self._create_state,
      out_shardings=sharding.replicated(mesh),
      compiler_options=options,
    )
    return create()

  def first_state(self, mesh: jax.sharding.Mesh) -> TrainState:
    """Returns the initial state, with the weights of `config.init` if any."""
    state, init = self.fresh_state(mesh), self.config.init
    if not (init.model or init.backbone):
      return state
    variables = weights.initialise(
      self.model,
      {"params": state.params, "batch_stats": state.batch_stats},
      model=init.model,
      backbone=init.backbone,
      skip=init.skip,
      changed=init.changed,
      read_workdir=lambda path: load_run(path).variables,
    )
    variables = sharding.replicate(variables, mesh)
    ema = state.ema
    if ema is not None:
      # The step donates the memory of the variables and of their averages, so
      # they must be separate arrays.
      ema = jax.tree.map(jnp.copy, variables)
    return state.replace(**variables, ema=ema)


def create(config: ConfigDict, mesh: jax.sharding.Mesh) -> Experiment:
  """Opens the data set and builds the values that a configuration describes.

  Args:
    config: Configuration, as `get_config` of a file returns it, with the
      overrides of the command line.
    mesh: Devices that batches are split over.

  Raises:
    UserError: A field has an invalid value, or a file cannot be used.
  """
  dataset = data.open(config, devices=mesh.size)
  _check_pixels(dataset)
  for name in dataset.absent_classes()[:10]:
    note(f"no pixel of {name} in the training masks")
  config = completed(config, dataset)
  task = tasks.create(config)
  model = create_model(config)
  params = trace(model, config)
  learning_rate = optimizers.schedule(
    config.schedule,
    peak=config.optimizer.learning_rate,
    steps=config.train.steps,
  )
  return Experiment(
    config=config,
    description=describe(config, params),
    dataset=dataset,
    model=model,
    task=task,
    inference=inference.create(config),
    optimizer=optimizers.create(config.optimizer, learning_rate, params),
    learning_rate=learning_rate,
    parts=config.optimizer.accumulate,
    ema_decay=config.optimizer.ema_decay,
    seed=config.seed,
    image_size=tuple(config.augment.crop),
    options=LoopOptions(**config.train.to_dict()),
  )


def _check_pixels(dataset: data.Dataset) -> None:
  """Checks that training has pixels to learn from.

  A note says if evaluation has none.

  Raises:
    UserError: Every pixel of the training masks is ignored.
  """
  split, ignored = dataset.train_split, dataset.ignore_label
  if not dataset.class_pixels(split).any():
    raise UserError(
      f"every pixel of the {split!r} masks has the id data.ignore_label="
      f"{ignored}, so there is nothing to learn; expected class ids: if "
      f"{ignored} is a class, set --config.data.label_map='{{{ignored}: 1}}', "
      "or correct the masks"
    )
  split = dataset.eval_split
  if not dataset.class_pixels(split).any():
    note(
      f"every pixel of the {split!r} masks is ignored; there will be no "
      "scores and no best step"
    )


def completed(config: ConfigDict, dataset: data.Dataset) -> ConfigDict:
  """Returns a copy of `config` with the fields that depend on the data.

  The work directory keeps the copy, from which the network can be rebuilt
  without the data.
  """
  config = config.copy_and_resolve_references()
  config.data.update(
    class_names=dataset.class_names,
    palette=dataset.palette,
    mean=dataset.mean,
    std=dataset.std,
    eval_split=dataset.eval_split,
    canvas=dataset.canvas,
    bits=dataset.bits,
  )
  config.augment.crop = dataset.crop
  if config.loss.balance and not config.loss.class_weights:
    config.loss.class_weights = dataset.median_frequency()
  return config


def describe(config: ConfigDict, params: Any) -> str:
  """Describes the network and the data set in one line.

  An example is "pspnet (small: resnet18 of width 16, output stride 4), 616,864
  parameters, on shapes".

  Args:
    config: The complete configuration.
    params: Parameters of the network, or their shapes.
  """
  model = config.model.to_dict()
  words = [word for word in config.words if word != config.data.name]
  parts = []
  backbone = model.get("backbone")
  if isinstance(backbone, dict):
    parts.append(backbone["name"])
    if "width" in backbone:
      parts[-1] += f" of width {backbone['width']}"
    if "output_stride" in backbone:
      parts.append(f"output stride {backbone['output_stride']}")
  name = model["name"]
  details = [", ".join(words), ", ".join(parts)]
  details = ": ".join(text for text in details if text)
  if details:
    name += f" ({details})"
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  return f"{name}, {count:,} parameters, on {config.data.name}"
