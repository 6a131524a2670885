"""FC-DenseNet67 (Jégou et al. 2017, arXiv:1611.09326).

  python train.py --config=configs/fc_densenet67.py
  python train.py --config=configs/fc_densenet67.py:camvid
  python train.py --config=configs/fc_densenet67.py:camvid
    --config.init.model=runs/fc_densenet67-camvid
    --workdir=runs/fc_densenet67-whole --config.augment.crop='(360, 480)'
    --config.optimizer.learning_rate=1e-4

Words: a data preset; `small`.

The recipe is that of FC-DenseNet56, whose file explains it: crops of 224, then
whole images at a tenth of the learning rate, from the best of the first stage.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small",)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("fc_densenet67", arg, WORDS)
  recipes.rmsprop(c, decay_rate=0.9, weight_decay=2e-4)
  recipes.epoch_decay(
    c, epochs=750, batch_size=3, learning_rate=1e-3, rate_decay=0.995
  )
  c.augment.update(crop=(224, 224), scale=(1.0, 1.0), flip=True)
  c.eval.batch_size = 1
  if "small" in c.words:
    recipes.small(c, learning_rate=4e-3, steps=800, eval_batch_size=50)
    c.model.update(down_layers=(2, 2, 2), bottleneck_layers=3)
    c.model.update(growth=8, stem_features=16)
  return c
