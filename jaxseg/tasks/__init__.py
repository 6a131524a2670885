"""Tasks: what the batches of a data set mean to training and evaluation.

A task is a frozen, hashable value without arrays. It has four methods:

- `inputs(batch, key)`: the images that the network sees in training, and their
  targets;
- `loss(outputs, target)`: the loss of the network's outputs as (sum, weight);
- `counts(logits, batch)`: what evaluation adds up over batches;
- `scores(counts)`: the numbers that a person reads, from the added counts;

and two attributes: `metric`, the score that selects the best checkpoint, and
`class_names`. The training step and the evaluation know nothing else of a
task, so a new task is one file here and one row of `TASKS`.
"""

from ml_collections import ConfigDict

from jaxseg.augment import Augmentation
from jaxseg.errors import unknown_name
from jaxseg.losses import HeadsLoss
from jaxseg.tasks.classification import Classification
from jaxseg.tasks.segmentation import Segmentation

TASKS = {"segmentation": Segmentation, "classification": Classification}


def create(config: ConfigDict) -> Segmentation:
  """Builds the task that a complete configuration describes.

  Args:
    config: The whole record; its `data` section names the classes, and holds
      their ignore label and the normalisation.

  Raises:
    UserError: `config.task` is unknown.
  """
  if config.task not in TASKS:
    raise unknown_name("task", config.task, TASKS)
  loss = config.loss.to_dict()
  # The class weights that this asked for are in the record by now.
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
