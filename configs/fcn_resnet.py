"""torchvision's FCN-ResNet (the FCN of Long et al. 2015 on a dilated ResNet).

  python train.py --config=configs/fcn_resnet.py
  python train.py --config=configs/fcn_resnet.py:camvid,resnet101

Words: a data preset; a backbone; `small`.

The recipe of torchvision's references/segmentation: SGD with momentum 0.9, a
learning rate of 0.02 for a batch of 32, ten times that for the auxiliary head,
decay 1e-4, poly 0.9, scales 0.5 to 2, crops of 480, mirroring, an auxiliary
loss of 0.5.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small",)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("fcn_resnet", arg, WORDS)
  with c.unlocked():
    c.loss.heads.aux_logits = 0.5
  c.optimizer.update(learning_rate=0.02, multipliers=(("^aux_head/", 10.0),))
  if c.data.name == "folder":
    c.augment.crop = (480, 480)
  c.train.update(steps=30_000, batch_size=32, eval_every=1000)
  if "small" in c.words:
    recipes.small(c, learning_rate=4e-3, steps=1000)
    recipes.narrow_resnet(c, output_stride=4)
  return c
