"""DeepLab v3 (Chen et al. 2017, arXiv:1706.05587).

  python train.py --config=configs/deeplab_v3.py
  python train.py --config=configs/deeplab_v3.py:camvid --workdir=runs/v3
    --config.init.backbone=resnet101.npz
  python train.py --config=configs/deeplab_v3.py:camvid,finetune
    --config.init.model=runs/v3

Words: a data preset; a backbone; `small`; `finetune`; `cascade` for block5 to
block7 instead of the pyramid; `torchvision` for torchvision's network and
recipe.

The paper trains in two stages (Sec. 4.1). The first, at output stride 16,
trains the batch normalisation with a learning rate of 0.007. The second,
`finetune`, continues at output stride 8 with frozen statistics and 0.001. Both
have SGD with momentum 0.9, batch 16, crops of 513, 30,000 steps, poly 0.9,
scales 0.5 to 2, mirroring, a decay of 1e-4 for kernels and twice the learning
rate for the classifier's bias (the authors' code). Running averages that keep
0.9997 need that many steps; for a folder, `train.norm_batches` recomputes them
before each evaluation. The paper's best scores need `--config.eval.flip=True
--config.eval.scales="(0.5,0.75,1.0,1.25,1.5,1.75)"`.

torchvision's recipe (references/segmentation) has one stage at output stride 8,
a learning rate of 0.02 for a batch of 32, ten times that for the auxiliary
head, whose loss counts half, and crops of 480.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "finetune", "cascade", "torchvision")
EXCLUSIVE = (("finetune", "small"), ("finetune", "torchvision"))


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("deeplab_v3", arg, WORDS, exclusive=EXCLUSIVE)
  if c.data.name == "folder":
    c.augment.crop = (513, 513)
    c.train.norm_batches = 50
  recipes.deeplab_sgd(c, learning_rate=0.007, weight_decay=1e-4)
  c.norm.momentum = 0.9997
  c.train.update(steps=30_000, batch_size=16, eval_every=1000)
  if "torchvision" in c.words:
    torchvision(c)
  if "small" in c.words:
    small(c)
  if "finetune" in c.words:
    c.model.backbone.output_stride //= 2
    c.norm.frozen = True
    c.train.norm_batches = 0
    c.optimizer.learning_rate = 0.001
  return c


def torchvision(c: ConfigDict) -> None:
  """Sets the recipe of torchvision's references/segmentation."""
  with c.unlocked():
    c.loss.heads.aux_logits = 0.5
  c.norm.momentum = 0.9
  c.train.update(batch_size=32, norm_batches=0)
  c.optimizer.update(learning_rate=0.02, no_decay=())
  c.optimizer.multipliers = (("^aux_head/", 10.0),)
  if c.data.name == "folder":
    c.augment.crop = (480, 480)


def small(c: ConfigDict) -> None:
  """Sets a narrow, short ResNet at output stride 4, and rates to match."""
  recipes.small(c, learning_rate=4e-3, steps=1000)
  c.norm.momentum = 0.9
  if "cascade" in c.words:
    c.model.cascade_blocks = 1
  else:
    c.model.update(rates=(1, 2, 3), features=64)
  recipes.narrow_resnet(c, output_stride=4)
