"""What a run starts from: network, optimizer, learning rate, state."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from jaxseg import sharding, weights
from jaxseg.runs.run import create_model, load_run
from jaxseg.training import optimizers
from jaxseg.training.state import TrainState, create_state


def start(
  config: ConfigDict, mesh: jax.sharding.Mesh
) -> tuple[nn.Module, Any, optax.Schedule, TrainState]:
  """Network, optimizer, learning rate, and a state born over the mesh."""
  model = create_model(config)
  key = jax.random.key(config.seed)
  image_shape = (1, *config.augment.crop, 3)
  variables = jax.eval_shape(
    lambda: model.init(key, jnp.zeros(image_shape), train=False)
  )
  rate = optimizers.schedule(
    config.schedule,
    peak=config.optimizer.learning_rate,
    steps=-(-config.train.steps // config.optimizer.accumulate),
  )
  optimizer = optimizers.create(config.optimizer, rate, variables["params"])
  init = functools.partial(
    create_state,
    model,
    optimizer,
    key,
    image_shape,
    ema=config.optimizer.ema_decay > 0,
  )
  state = jax.jit(init, out_shardings=sharding.replicated(mesh))()
  return model, optimizer, rate, state


def initialise(
  config: ConfigDict, model: nn.Module, state: TrainState, mesh
) -> TrainState:
  """Puts what `config.init` names into a fresh state."""
  if not (config.init.model or config.init.backbone):
    return state
  variables = weights.initialise(
    model,
    {"params": state.params, "batch_stats": state.batch_stats},
    model=config.init.model,
    backbone=config.init.backbone,
    skip=config.init.skip,
    read_workdir=lambda path: load_run(path).variables,
  )
  variables = jax.device_put(variables, sharding.replicated(mesh))
  # A copy: the step donates both.
  ema = state.ema and jax.tree.map(jnp.copy, variables["params"])
  return state.replace(
    params=variables["params"], batch_stats=variables["batch_stats"], ema=ema
  )
