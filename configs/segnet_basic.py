"""SegNet-Basic (Badrinarayanan et al. 2017, arXiv:1511.00561).

  python train.py --config=configs/segnet_basic.py
  python train.py --config=configs/segnet_basic.py:camvid,laptop

Words: a data preset; `small`; `laptop` for two CPU cores.

The published recipe (SegNet-Tutorial's solver and prototxt; the batch of 12 is
the paper's, the solver has 4): SGD with momentum 0.9, a fixed learning rate of
0.1, decay 5e-4, 10,000 steps; images of 360x480 in 0..255 without a mean (local
response normalisation replaces it) and without augmentation; classes weighted
by median frequency, the loss divided by the number of pixels. The statistics of
the norms are those of all training images, recomputed before each evaluation:
at this learning rate running averages describe an outdated network.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "laptop")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("segnet_basic", arg, WORDS)
  recipes.caffe_input(c, mean=(0.0, 0.0, 0.0))
  recipes.caffe_sgd(c)
  recipes.median_frequency(c)
  c.optimizer.learning_rate = 0.1
  c.schedule.name = "constant"
  c.augment.update(scale=(1.0, 1.0), flip=False)
  c.train.update(steps=10_000, batch_size=12, eval_every=500)
  c.train.norm_batches = 31  # All 367 training images of CamVid.
  if "small" in c.words:
    recipes.small(c, learning_rate=1e-2, steps=800, eval_batch_size=50)
    c.augment.flip = True
    c.loss.balance = ""
    c.model.features = 16
  elif "laptop" in c.words:
    laptop(c)
  return c


def laptop(c: ConfigDict) -> None:
  """Sets the whole network on images of half the size, batch 4 as the solver.

  It takes half an hour on two CPU cores. Evaluation of CamVid shrinks the
  images alike and scores at their full size.
  """
  recipes.halve(c, crop=(180, 240), scale=(0.5, 0.5))
  c.eval.batch_size = 8
  c.train.update(steps=600, batch_size=4, eval_every=150, checkpoint_every=150)
  c.train.norm_batches = 40
