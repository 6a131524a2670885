"""PSPNet (Zhao et al. 2017): python train.py --config=configs/pspnet.py

Data presets: `configs/pspnet.py:shapes` (the default), `:camvid`, `:folder`.
`:camvid,laptop` and `:folder,laptop` fit two CPU cores.

The recipe of the author's code (hszhao/semseg): SGD 0.9, learning rate 0.01
and ten times that for the new layers, decay 1e-4, poly 0.9, batch 16, scales
0.5 to 2, mirroring, auxiliary loss 0.4.
"""

from ml_collections import ConfigDict

from jaxseg.config import parse_arg, with_data

VARIANTS = ("laptop",)


def get_config(arg: str = "") -> ConfigDict:
  """PSPNet on the data preset, and with the variants, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = with_data(preset)
  with c.unlocked():
    c.name = "pspnet"
    c.model = ConfigDict(
      dict(
        name="pspnet",
        backbone=dict(name="resnet50", output_stride=8, stem="deep", width=64),
        bins=(1, 2, 3, 6),
        head_features=512,
        aux_features=256,
        dropout_rate=0.1,
      )
    )
  c.loss.heads = ConfigDict({"logits": 1.0, "aux_logits": 0.4})
  c.optimizer.multipliers = (("^(pyramid|head|aux_head)/", 10.0),)
  c.train.batch_size = 16
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """A narrow ResNet-18 at output stride 4: minutes on two CPU cores."""
  c.model.backbone.update(name="resnet18", output_stride=4, width=24)
  c.model.update(head_features=96, aux_features=48)
  c.optimizer.update(
    name="adamw", learning_rate=3e-3, weight_decay=0.05, multipliers=()
  )
  c.schedule.update(name="cosine", warmup_steps=50)
  c.train.update(steps=600, batch_size=32, eval_every=200)
