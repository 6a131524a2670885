"""Image classifier on any backbone.

  python train.py --config=configs/classifier.py
  python train.py --config=configs/classifier.py:folder,densenet121

Words: a data preset; a backbone; `small`. The class of an image is the one
that covers most of it; on `shapes` it is that of the largest shape.

The recipe is torchvision's for ImageNet (references/classification): SGD with
momentum 0.9, a learning rate of 0.1 that is divided by ten twice, decay 1e-4.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small",)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("classifier", arg, WORDS)
  c.task = "classification"
  c.eval.rand = False
  c.optimizer.update(learning_rate=0.1)
  c.schedule.update(name="step", step_fractions=(1 / 3, 2 / 3))
  c.train.update(steps=30_000, batch_size=32, eval_every=1000)
  if "small" in c.words:
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Sets a narrow ResNet-18 that trains from random weights."""
  recipes.replace_backbone(c, "resnet18", width=32)
  c.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.02)
  c.schedule.update(name="cosine", warmup_steps=50)
  c.train.update(steps=600, eval_every=200)
