"""Any backbone as a classifier: python train.py --config=configs/classifier.py

`:shapes` (the default) names the largest shape of each image of the embedded
data set, with a narrow ResNet-18, in minutes on two CPU cores. Another
backbone is `--config.model.backbone.name=densenet121`; `:folder` classifies
the images of a segmentation data set by their largest class.

The ImageNet recipe of torchvision's references/classification: SGD 0.9,
learning rate 0.1 divided by ten twice, decay 1e-4.
"""

from ml_collections import ConfigDict

from jaxseg.config import parse_arg, with_data


def get_config(arg: str = "") -> ConfigDict:
  """A classifier on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = with_data(preset)
  with c.unlocked():
    c.name = "classifier"
    c.model = ConfigDict(
      dict(name="classifier", backbone=dict(name="resnet50"))
    )
  c.task = "classification"
  c.eval.rand = False
  c.optimizer.update(learning_rate=0.1)
  c.schedule.update(name="step", step_fractions=(1 / 3, 2 / 3))
  c.train.update(steps=30_000, batch_size=32, eval_every=1000)
  if preset == "shapes":
    with c.unlocked():
      c.model.backbone.update(name="resnet18", width=32)
    c.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.02)
    c.schedule.update(name="cosine", warmup_steps=50)
    c.train.update(steps=600, eval_every=200)
  return c
