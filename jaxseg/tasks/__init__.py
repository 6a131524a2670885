"""Tasks: the meaning of a batch in training and evaluation.

A task is a frozen, hashable value without arrays, with the methods of
`task.Task`, above all `inputs`, `loss`, `counts` and `scores`. Step, loop and
scoring know a task by these methods only, so a new task is one file in this
package and one row of `TASKS`.
"""

from ml_collections import ConfigDict

from jaxseg.augment import Augmentation
from jaxseg.errors import unknown_name
from jaxseg.losses import HeadsLoss
from jaxseg.tasks.classification import Classification
from jaxseg.tasks.segmentation import Segmentation
from jaxseg.tasks.task import Task

TASKS = {"segmentation": Segmentation, "classification": Classification}


def create(config: ConfigDict) -> Task:
  """Builds the task of a complete configuration.

  Args:
    config: The whole configuration. Its `data` section has the class names,
      the ignore label, the mean and the standard deviation.

  Raises:
    UserError: `config.task` is unknown.
  """
  if config.task not in TASKS:
    raise unknown_name("task", config.task, TASKS)
  loss = config.loss.to_dict()
  # Training has replaced `balance` by the class weights that it stands for.
  del loss["balance"]
  return TASKS[config.task](
    class_names=tuple(config.data.class_names),
    mean=tuple(config.data.mean),
    std=tuple(config.data.std),
    ignore_label=config.data.ignore_label,
    augmentation=Augmentation(**config.augment.to_dict()),
    heads_loss=HeadsLoss(**loss),
    absent=config.eval.absent,
    rand=config.eval.rand,
  )
