"""DeepLab v2 (Chen et al. 2018, arXiv:1606.00915).

  python train.py --config=configs/deeplab_v2.py
  python train.py --config=configs/deeplab_v2.py:camvid
    --config.init.backbone=resnet101.npz

Words: a data preset; a backbone; `small`; `vgg` for ASPP-L on VGG-16 instead
of ResNet-101 with multi-scale inputs; `scratch` to train the batch
normalisation, which the paper freezes as ImageNet left it.
`--config.eval.crf=deeplab_v2` adds the dense CRF to the evaluation.

The recipe of the paper and its ports (Sec. 4.1; Table 2): SGD with momentum
0.9, batch 10, a learning rate of 2.5e-4 (VGG: 1e-3) and ten times that for the
pyramid (biases twenty times), poly 0.9 over 20,000 steps, decay 5e-4, scales
0.5 to 1.5, mirroring, crops of 321, loss on every eighth pixel of each scale
and of their maximum. Where the batch normalisation is frozen, its scales and
shifts do not learn either, as in the published training.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "vgg", "scratch")
EXCLUSIVE = (("scratch", "small"), ("scratch", "vgg"))


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config(
    "deeplab_v2", arg, WORDS, with_backbone=("vgg",), exclusive=EXCLUSIVE
  )
  recipes.caffe_sgd(c)
  c.loss.label_stride = 8
  c.augment.update(crop=(321, 321), scale=(0.5, 1.5))
  c.train.update(steps=20_000, batch_size=10, eval_every=1000)
  pyramid = (("^aspp/.*kernel$", 10.0), ("^aspp/.*bias$", 20.0))
  if "vgg" in c.words:
    c.optimizer.learning_rate = 1e-3
    c.optimizer.multipliers = (*pyramid, ("bias$", 2.0))
  else:
    with c.unlocked():
      c.loss.heads.update(aux_logits_50=1.0, aux_logits_75=1.0)
      c.loss.heads.aux_logits_100 = 1.0
    c.optimizer.learning_rate = 2.5e-4
    c.optimizer.multipliers = pyramid
    if "scratch" not in c.words:
      c.norm.frozen = True
      frozen = ("^backbone/.*norm/(scale|bias)$", 0.0)
      c.optimizer.multipliers = (frozen, *pyramid)
  if "small" in c.words:
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Sets a narrow ResNet-18 or VGG-16 that trains from random weights."""
  recipes.small(c, learning_rate=3e-3, steps=1000)
  c.norm.frozen = False
  if "vgg" in c.words:
    c.model.backbone.update(width=16, batch_norm=True)
    c.model.update(hidden_features=32, dropout_rate=0.1)
  else:
    stages = (2, 2, 2, 1)
    recipes.replace_backbone(c, "resnet18", width=16, stage_sizes=stages)
  c.model.rates = (1, 2, 3, 4)
  c.augment.scale = (1.0, 1.0)
  c.loss.label_stride = 1
