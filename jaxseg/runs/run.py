"""A trained network, rebuilt from its work directory alone."""

import dataclasses
import functools
from typing import Any

from etils import epath
import flax.linen as nn
import jax
from jaxtyping import Integer, UInt8
from ml_collections import ConfigDict
import numpy as np

from jaxseg import files, models, tasks
from jaxseg.data.placement import Placement
from jaxseg.errors import UserError
from jaxseg.evaluation import inference as inferences
from jaxseg.evaluation.inference import Inference
from jaxseg.runs.checkpoints import Checkpoints
from jaxseg.runs.workdir import load_config
from jaxseg.tasks.segmentation import Segmentation


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained network.

  Attributes:
    config: The configuration it was trained with.
    model: The network.
    variables: Its parameters (their average, if training kept one) and batch
      statistics.
    step: The training step they are from.
  """

  config: ConfigDict
  model: nn.Module
  variables: dict[str, Any]
  step: int

  @property
  def task(self) -> Segmentation:
    """What the network's batches mean."""
    return tasks.create(self.config)

  @property
  def inference(self) -> Inference:
    """How the network is applied, as `config.eval` says."""
    return inferences.create(self.config)

  def predict(
    self, image: UInt8[np.ndarray, "h w 3"]
  ) -> Integer[np.ndarray, "h w"]:
    """Returns the class id of each pixel of one RGB image of any size.

    The first call compiles the network for the evaluation canvas. An image
    larger than the canvas is shrunk to fit it, and its logits are enlarged
    again. Threads may call this at the same time.

    Raises:
      UserError: The network classifies whole images.
    """
    # Placed like an example whose labels nobody reads.
    labels = np.zeros(image.shape[:2], np.uint8)
    example = self._placement.make(image, labels, np.dtype(np.uint8))
    logits = self.compiled(self.variables, example["image"][None])
    h, w = example["size"]
    return inferences.ids_at_size(
      np.asarray(logits)[0, :h, :w], image.shape[:2]
    )

  @functools.cached_property
  def compiled(self):
    """The network, compiled for one image on the evaluation canvas."""
    if self.config.task == "classification":
      raise UserError(
        f"{self.config.name} classifies whole images, so it predicts no masks; "
        "expected the run of a segmentation network"
      )
    predict_logits = inferences.make_predict_logits(
      self.model, self.task, self.inference
    )
    shape = (1, *self._placement.canvas, 3)
    return (
      jax.jit(predict_logits)
      .lower(self.variables, jax.ShapeDtypeStruct(shape, np.uint8))
      .compile()
    )

  @functools.cached_property
  def _placement(self) -> Placement:
    data = self.config.data
    height, width = self.config.eval.canvas or data.canvas
    red, green, blue = (round(255 * m) for m in data.mean)
    return Placement(
      canvas=(height, width),
      fill=(red, green, blue),
      ignore_label=data.ignore_label,
    )


def load_run(workdir: epath.PathLike, checkpoint: str | int = "best") -> Run:
  """Rebuilds a network and its variables from a work directory.

  Args:
    workdir: A directory that training wrote.
    checkpoint: "best" (by the score of the evaluation split; the last one if
      none was evaluated), "last", or the number of a step.

  Raises:
    UserError: There is no run, no checkpoint, or not the one asked for.
  """
  workdir = files.to_path(workdir)
  config = load_config(workdir)
  if not (workdir / "checkpoints").is_dir():
    raise UserError(f"{workdir}/checkpoints: no such directory; train first")
  checkpoints = Checkpoints(workdir, metric=tasks.create(config).metric)
  steps = checkpoints.steps()
  if not steps:
    raise UserError(f"{workdir}/checkpoints holds no complete checkpoint")
  if checkpoint == "best":
    step = checkpoints.best_step()
    step = steps[-1] if step is None else step
  elif checkpoint == "last":
    step = steps[-1]
  else:
    step = int(checkpoint)
    if step not in steps:
      raise UserError(f"{workdir}: no checkpoint of step {step}; has {steps}")
  tree = checkpoints.restore_as_saved(step)
  checkpoints.close()
  params = tree["params"] if tree.get("ema") is None else tree["ema"]
  variables = {"params": params, "batch_stats": tree.get("batch_stats") or {}}
  return Run(config, create_model(config), variables, step)


def create_model(config: ConfigDict) -> nn.Module:
  """Builds the network of a complete configuration."""
  fields = {"dtype": config.dtype, **config.model.to_dict()}
  norm = config.norm.to_dict()
  used = {
    "batch": ("name", "momentum", "epsilon", "frozen"),
    "group": ("name", "epsilon"),
  }.get(norm["name"], ("name",))
  if norm["name"] != "paper":
    fields["norm"] = {key: norm[key] for key in used}
  return models.create(
    fields.pop("name"), num_classes=len(config.data.class_names), **fields
  )
