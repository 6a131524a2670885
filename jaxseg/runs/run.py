"""Loads a trained network from its work directory."""

from collections.abc import Callable
import dataclasses
import functools
import threading
from typing import Any

from etils import epath
import flax.linen as nn
import jax
from jaxtyping import Integer
from ml_collections import ConfigDict
import numpy as np

from jaxseg import config_check, files, tasks
from jaxseg.data import decoding
from jaxseg.data.placement import Placement
from jaxseg.errors import UserError
from jaxseg.evaluation import inference
from jaxseg.evaluation.inference import Inference
from jaxseg.runs.checkpoints import Checkpoints, DamagedError
from jaxseg.runs.network import create_model
from jaxseg.runs.workdir import load_config
from jaxseg.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained network.

  Attributes:
    config: The complete configuration of the training run.
    model: The network.
    variables: Parameters, or their moving average if training kept one, and
      batch statistics.
    step: Training step of the variables.
  """

  config: ConfigDict
  model: nn.Module
  variables: dict[str, Any]
  step: int
  _lock: threading.Lock = dataclasses.field(
    default_factory=threading.Lock, init=False, repr=False, compare=False
  )
  _compiled: dict[tuple[int, int], Callable] = dataclasses.field(
    default_factory=dict, init=False, repr=False, compare=False
  )

  @property
  def task(self) -> Task:
    """The task that the network was trained for."""
    return tasks.create(self.config)

  @property
  def inference(self) -> Inference:
    """The settings of inference in `config.eval`."""
    return inference.create(self.config)

  def predict(self, image: decoding.RgbImage) -> Integer[np.ndarray, "h w"]:
    """Returns the class id of each pixel of an RGB image of any size.

    The image is resized to the size that `evaluate` gives it, which is at most
    that of the evaluation canvas, and the logits are resized to the size of the
    image. The network is compiled once for each of these sizes. Several threads
    may call this method at the same time.

    The values of a uint16 image are scaled as those of 16-bit files, by
    `config.data.bits`.

    Raises:
      UserError: The network classifies whole images, or was trained on images
        of 8 bits and `image` has 16.
    """
    x = self._placement.network_input(image)
    logits = self.compiled(x.shape[:2])(self.variables, x[None])
    return inference.ids_at_size(np.asarray(logits)[0], image.shape[:2])

  def input_size(self, size: tuple[int, ...]) -> tuple[int, int]:
    """Returns the size of the network's input for an image of `size`."""
    return self._placement.input_size(size)

  def compiled(self, size: tuple[int, int]) -> Callable:
    """Compiles the inference function for one image, once for each size.

    Args:
      size: Height and width of the network's input.

    Returns:
      A function of (variables, uint8 images) to logits.

    Raises:
      UserError: The network classifies whole images.
    """
    if self.config.task == "classification":
      raise UserError(
        f"{self.config.name} classifies whole images, so it predicts no masks; "
        "expected the run of a segmentation network"
      )
    with self._lock:  # Threads that need the same size compile it once.
      if size not in self._compiled:
        image = jax.ShapeDtypeStruct((1, *size, 3), np.uint8)
        predict_logits = inference.make_predict_logits(
          self.model, self.task, self.inference
        )
        lowered = jax.jit(predict_logits).lower(self.variables, image)
        self._compiled[size] = lowered.compile()
      return self._compiled[size]

  @functools.cached_property
  def _placement(self) -> Placement:
    """The placement of images on the evaluation canvas."""
    data = self.config.data
    canvas = self.config.eval.canvas or data.canvas
    return Placement.on_mean(
      tuple(canvas), data.mean, data.ignore_label, bits=data.bits
    )


def load_run(workdir: epath.PathLike, checkpoint: str | int = "best") -> Run:
  """Loads a network and its variables from a work directory.

  A damaged checkpoint is skipped with a note: "best" then is the best, and
  "last" the last, of the others.

  Args:
    workdir: Work directory of a training run.
    checkpoint: "best" for the checkpoint with the best score on the evaluation
      split, or the last one if none was evaluated; "last" for the last one; or
      the number of a step.

  Raises:
    UserError: The work directory has no run or no such checkpoint, the
      checkpoint of this step or every checkpoint is damaged, or a parameter is
      not finite.
  """
  workdir = files.to_path(workdir)
  config = load_config(workdir)
  _check(config, workdir)
  if not (workdir / "checkpoints").is_dir():
    raise UserError(f"{workdir}/checkpoints: no such directory; train first")
  checkpoints = Checkpoints(workdir, metric=tasks.create(config).metric)
  steps = checkpoints.steps()
  if not steps:
    raise UserError(f"{workdir}/checkpoints holds no complete checkpoint")
  if checkpoint == "best":
    step, tree = checkpoints.restore_first(checkpoints.ranked_steps())
  elif checkpoint == "last":
    step, tree = checkpoints.restore_first(steps[::-1])
  else:
    step = int(checkpoint)
    if step not in steps:
      raise UserError(
        f"{workdir}: no checkpoint of step {step}; steps with one: {steps}"
      )
    try:
      tree = checkpoints.restore_as_saved(step)
    except DamagedError as error:
      others = [other for other in steps if other != step]
      raise UserError(f"{workdir}: {error}; other steps: {others}") from error
  variables = saved_variables(tree)
  check_finite(variables, f"{workdir}, checkpoint {step}")
  return Run(config, create_model(config), variables, step)


def check_finite(variables: dict[str, Any], origin: str) -> None:
  """Checks that no variable is infinite or NaN.

  Args:
    variables: Nested dicts of arrays.
    origin: Where they come from, for the message.

  Raises:
    UserError: It names the first array that has such a value.
  """
  for path, array in jax.tree_util.tree_leaves_with_path(variables):
    finite = np.isfinite(np.asarray(array))
    if not finite.all():
      name = "/".join(str(key.key) for key in path)
      raise UserError(
        f"{origin}: {name} has {finite.size - np.count_nonzero(finite)} values "
        f"of {finite.size} that are infinite or NaN; choose another "
        "checkpoint, or train again"
      )


def saved_variables(tree: dict[str, Any]) -> dict[str, Any]:
  """Returns the variables for evaluation of a saved train state.

  Checkpoints of version 0.1 have an average of the parameters alone; it was
  evaluated with the batch statistics of the parameters themselves.
  """
  ema = tree.get("ema")
  batch_stats = tree.get("batch_stats") or {}
  if ema is None:
    return {"params": tree["params"], "batch_stats": batch_stats}
  if ema.keys() <= {"params", "batch_stats"}:
    return {"batch_stats": {}, **ema}
  return {"params": ema, "batch_stats": batch_stats}


def _check(config: ConfigDict, workdir: epath.Path) -> None:
  """Checks the fields of a saved configuration; errors name its file."""
  try:
    config_check.check(config, training=False)
  except UserError as error:
    raise UserError(f"{workdir}/config.json: {error}") from None
  if not config.data.class_names:
    raise UserError(
      f"{workdir}/config.json: data.class_names is empty; expected the classes "
      "that training wrote: restore the file from a copy"
    )
