"""DeepLab v3 (Chen et al. 2017): python train.py --config=configs/deeplab_v3.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. The paper trains in two stages (Sec. 4.1), here of
CamVid:

  python train.py --config=configs/deeplab_v3.py:camvid --workdir=runs/v3
    --config.init.backbone=resnet101.npz
  python train.py --config=configs/deeplab_v3.py:camvid,finetune
    --config.init.model=runs/v3

The first at output stride 16 trains the batch normalisation, with learning
rate 0.007; `finetune` goes on at output stride 8 with frozen statistics and
0.001. Both: SGD 0.9, batch 16, crops of 513, 30,000 steps, poly 0.9, scales
0.5 to 2, mirroring, decay 1e-4 of kernels and the scores' bias twice as fast
(the authors' code). Running statistics that keep 0.9997 need such many steps:
where images are a folder, `train.norm_batches` takes them anew for each
evaluation. The paper's best scores add `--config.eval.flip=True
--config.eval.scales="(0.5,0.75,1.0,1.25,1.5,1.75)"`.

`cascade` is block5 to block7 instead of the pyramid. `torchvision` is
torchvision's network and recipe: one stage at output stride 8, learning rate
0.02 for a batch of 32, ten times that for the auxiliary head, whose loss
counts half; crops of 480.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data
from jaxseg.errors import UserError

VARIANTS = ("finetune", "cascade", "torchvision")


def get_config(arg: str = "") -> ConfigDict:
  """DeepLab v3 on the data preset, and with the variants, that `arg` names."""
  preset, chosen = parse_arg(arg, VARIANTS)
  _check(preset, chosen)
  variant = next((v for v in chosen if v != "finetune"), "paper")
  c = with_data(preset)
  with c.unlocked():
    c.name = "deeplab_v3"
    c.model = ConfigDict(
      dict(
        name="deeplab_v3",
        variant=variant,
        backbone=dict(
          name="resnet101",
          output_stride=8 if variant == "torchvision" else 16,
          width=64,
        ),
        rates=(6, 12, 18),
        features=256,
      )
    )
  if preset == "folder":
    c.data.canvas = c.augment.crop = (513, 513)
    c.train.norm_batches = 50
  recipes.deeplab_sgd(c, weight_decay=1e-4)
  c.norm.update(name="batch", momentum=0.9997)
  c.train.update(steps=30_000, batch_size=16, eval_every=1000)
  if variant == "torchvision":
    torchvision(c, preset)
  if preset == "shapes":
    small(c)
  if "finetune" in chosen:
    finetune(c)
  return c


def _check(preset: str, chosen: tuple[str, ...]) -> None:
  """Refuses variants that do not go together."""
  if "torchvision" in chosen and len(chosen) > 1:
    raise UserError(
      f"configs/deeplab_v3.py:{','.join(chosen)}: torchvision's network has "
      "neither a cascade nor a second stage; leave out one of the two"
    )
  if "finetune" in chosen and preset == "shapes":
    raise UserError(
      "configs/deeplab_v3.py:shapes,finetune: the narrow network has no second "
      "stage; choose another preset, such as camvid"
    )


def torchvision(c: ConfigDict, preset: str) -> None:
  """The recipe of torchvision's references/segmentation."""
  with c.unlocked():
    c.loss.heads = ConfigDict({"logits": 1.0, "aux_logits": 0.5})
  c.norm.momentum = 0.9
  c.train.norm_batches = 0
  c.optimizer.update(
    learning_rate=0.02, multipliers=(("^aux_head/", 10.0),), no_decay=()
  )
  c.train.batch_size = 32
  if preset == "folder":
    c.augment.crop = (480, 480)


def finetune(c: ConfigDict) -> None:
  """The second stage: twice the resolution, statistics as they are."""
  c.model.backbone.output_stride //= 2
  c.norm.frozen = True
  c.optimizer.learning_rate /= 7


def small(c: ConfigDict) -> None:
  """A narrow, short ResNet at output stride 4 with rates to match."""
  recipes.from_scratch(c, learning_rate=4e-3, steps=1000)
  c.norm.momentum = 0.9
  c.model.update(rates=(1, 2, 3), features=64)
  with c.unlocked():
    c.model.backbone.update(
      name="resnet18", output_stride=4, width=16, stage_sizes=(2, 2, 2, 1)
    )
    if c.model.variant == "cascade":
      c.model.cascade_blocks = 1
