"""U-Net on a backbone: python train.py --config=configs/unet_backbone.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`, `:isbi_em`. Any backbone is a flag away, as `:camvid
--config.model.backbone.name=efficientnet_b0` (`:shapes` has fields of a narrow
ResNet), and starts from its ImageNet weights with
`--config.init.backbone=efficientnet_b0.npz`.

There is no paper of it. The recipe is an ordinary one for a trained backbone:
AdamW, the backbone at a tenth of the rate, poly 0.9, scales 0.5 to 2.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data


def get_config(arg: str = "") -> ConfigDict:
  """U-Net on ResNet-34, on the data preset that `arg` names."""
  preset, _ = parse_arg(arg)
  c = with_data(preset)
  with c.unlocked():
    c.name = "unet_backbone"
    c.model = ConfigDict(
      dict(
        name="unet_backbone",
        backbone=dict(name="resnet34", output_stride=32),
        decoder_features=(256, 128, 64, 32, 16),
        upsample="nearest",
        centre=False,
      )
    )
  recipes.adamw(c, learning_rate=1e-3)
  c.optimizer.multipliers = (("^backbone/", 0.1),)
  c.train.update(steps=20_000, batch_size=16, eval_every=1000)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow, short ResNet and decoder."""
  recipes.from_scratch(c, learning_rate=4e-3, steps=1000)
  with c.unlocked():
    c.model.backbone.update(name="resnet18", width=16, stage_sizes=(1, 1, 1, 1))
  c.model.decoder_features = (64, 32, 32, 16, 16)
  c.eval.batch_size = 50
