"""FC-DenseNet56 (Jégou et al. 2017, arXiv:1611.09326).

  python train.py --config=configs/fc_densenet56.py
  python train.py --config=configs/fc_densenet56.py:camvid
  python train.py --config=configs/fc_densenet56.py:camvid
    --config.init.model=runs/fc_densenet56-camvid
    --workdir=runs/fc_densenet56-whole --config.augment.crop='(360, 480)'
    --config.optimizer.learning_rate=1e-4

Words: a data preset; `small`; `laptop`, half an hour on two CPU cores.

The recipe of the authors' code (config/FC-DenseNet103.py and train.py) has two
stages: crops of 224, then whole images at a tenth of the learning rate, from
the best of the first. RMSprop with a learning rate of 1e-3 that is multiplied
by 0.995 after each epoch of CamVid's 367 images in batches of 3, at most 750
epochs, L2 of 1e-4 on all parameters but biases (its gradient is 2e-4 w).
Evaluation normalises by the batch, so a batch is one image: 360x480 pixels are
about as many as three crops, and no padding is needed. The authors tested with
batches of ten.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "laptop")


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("fc_densenet56", arg, WORDS)
  recipes.rmsprop(c, decay_rate=0.9, weight_decay=2e-4)
  recipes.epoch_decay(
    c, epochs=750, batch_size=3, learning_rate=1e-3, rate_decay=0.995
  )
  c.augment.update(crop=(224, 224), scale=(1.0, 1.0), flip=True)
  c.eval.batch_size = 1
  if "small" in c.words:
    recipes.small(c, learning_rate=4e-3, steps=800, eval_batch_size=50)
    c.model.update(down_layers=(2, 2, 2), bottleneck_layers=2)
    c.model.update(growth=8, stem_features=16)
  elif "laptop" in c.words:
    laptop(c)
  return c


def laptop(c: ConfigDict) -> None:
  """Sets the whole network on images of half the size.

  Evaluation of CamVid shrinks the images alike and scores at their full size.
  """
  c.optimizer.ema_decay = 0.98
  c.schedule.update(name="cosine", warmup_steps=20)
  recipes.halve(c, crop=(176, 240), scale=(0.4, 0.7))
  c.train.update(steps=400, batch_size=3, eval_every=100, checkpoint_every=100)
