"""DeconvNet (Noh et al. 2015, arXiv:1505.04366).

  python train.py --config=configs/deconvnet.py
  python train.py --config=configs/deconvnet.py:camvid,stage1 --workdir=runs/s1
  python train.py --config=configs/deconvnet.py:camvid
    --config.init.model=runs/s1

Words: a data preset; a backbone; `small`; `stage1`. The network learns from
boxes of 224x224 in two stages:

1. `stage1`: easy boxes, each around one object that fills most of it; 20,000
   updates;
2. boxes of any content, from the weights of stage 1; 40,000 updates.

The authors cut the boxes of stage 1 around the objects of PASCAL VOC, enlarged
1.2 times, with every other object labelled background, and those of stage 2
around EdgeBox proposals. Data sets of scenes have neither, so both stages take
random boxes here: small ones enlarged to 224 in stage 1, ones around 224 in
stage 2. SGD with momentum 0.9, a learning rate of 0.01 divided by ten every
9,000 (stage 1) or 10,000 updates, decay 5e-4, 64 boxes an update in 8 parts of
8, mirrored at random. VGG-16 starts from ImageNet with
`--config.init.backbone=vgg16_bn.pth`, and images are normalised accordingly.

Evaluation slides a 224x224 window; `jaxseg.evaluation.proposals` takes the
maximum over given boxes, as the paper does.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "stage1")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("deconvnet", arg, WORDS, exclusive=(WORDS,))
  recipes.caffe_sgd(c)
  c.optimizer.update(learning_rate=0.01, accumulate=8)
  c.augment.update(crop=(224, 224), scale=(0.7, 1.4), flip=True)
  c.schedule.update(name="step", step_fractions=(0.25, 0.5, 0.75))
  c.train.update(steps=40_000, batch_size=64)
  c.train.update(eval_every=1000, checkpoint_every=1000)
  c.train.norm_batches = 63  # 504 parts of 8 boxes; the authors average 501.
  c.eval.mode = "sliding"
  if "stage1" in c.words:
    c.augment.scale = (1.4, 2.8)
    c.schedule.step_fractions = (0.45, 0.9)
    c.train.steps = 20_000
  if "small" in c.words:
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Sets a narrow VGG and a 2x2 fc6, trained on whole scenes."""
  recipes.small(c, learning_rate=8e-3, steps=1000, eval_batch_size=50)
  c.model.backbone.update(width=12, stage_sizes=(1, 1, 1, 1, 1))
  c.model.update(fc_features=64, fc_kernel=2, init_deviation=0.1)
  c.augment.scale = (1.0, 1.0)
  c.eval.mode = "whole"
