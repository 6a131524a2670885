"""Bayesian SegNet (Kendall et al. 2015, arXiv:1511.02680).

  python train.py --config=configs/bayesian_segnet.py
  python train.py --config=configs/bayesian_segnet.py:camvid

Words: a data preset; a backbone; `small`.

The published recipe (SegNet-Tutorial's solver and prototxt) is that of SegNet:
SGD with momentum 0.9, a fixed learning rate of 0.001, decay 5e-4, batch 4, no
augmentation and classes weighted by median frequency, for 60,000 steps. Dropout
of 0.5 surrounds the three deepest stages. Evaluation averages 40 dropout
samples (`--config.eval.dropout_samples=0` evaluates without dropout);
`jaxseg.layers.monte_carlo` returns mean and variance.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small",)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("bayesian_segnet", arg, WORDS)
  recipes.caffe_sgd(c)
  recipes.median_frequency(c)
  c.optimizer.learning_rate = 1e-3
  c.schedule.name = "constant"
  c.augment.update(scale=(1.0, 1.0), flip=False)
  c.train.update(steps=60_000, batch_size=4, eval_every=1000)
  c.train.norm_batches = 92  # All 367 training images of CamVid.
  c.eval.update(dropout_samples=40, batch_size=4)
  if "small" in c.words:
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Sets a narrow, shallow VGG with less dropout."""
  recipes.small(c, learning_rate=8e-3, steps=1500, eval_batch_size=50)
  c.augment.flip = True
  c.loss.balance = ""
  c.model.backbone.update(
    width=12, stage_sizes=(2, 2, 1, 1, 1), dropout_rate=0.1
  )
  c.model.dropout_rate = 0.1
  c.eval.dropout_samples = 8
