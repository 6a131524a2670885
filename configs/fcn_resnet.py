"""torchvision's FCN-ResNet: python train.py --config=configs/fcn_resnet.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. ResNet-101 is `--config.model.backbone.name=resnet101`.

The recipe of torchvision's references/segmentation: SGD 0.9, learning rate
0.02 for a batch of 32, ten times that for the auxiliary head, decay 1e-4,
poly 0.9, scales 0.5 to 2, crops of 480, mirroring, auxiliary loss 0.5.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data


def get_config(arg: str = "") -> ConfigDict:
  """FCN-ResNet on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = with_data(preset)
  with c.unlocked():
    c.name = "fcn_resnet"
    c.model = ConfigDict(
      dict(
        name="fcn_resnet",
        backbone=dict(name="resnet50", output_stride=8, width=64),
        dropout_rate=0.1,
      )
    )
    c.loss.heads = ConfigDict({"logits": 1.0, "aux_logits": 0.5})
  c.optimizer.update(learning_rate=0.02, multipliers=(("^aux_head/", 10.0),))
  c.augment.crop = (480, 480) if preset == "folder" else c.augment.crop
  c.train.update(steps=30_000, batch_size=32, eval_every=1000)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow, short ResNet at output stride 4."""
  recipes.from_scratch(c, learning_rate=4e-3, steps=1000)
  with c.unlocked():
    c.model.backbone.update(
      name="resnet18", output_stride=4, width=16, stage_sizes=(2, 2, 2, 1)
    )
