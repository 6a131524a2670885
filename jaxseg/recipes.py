"""Parts of recipes that several configurations share.

Each changes a configuration in place. What only one network does stands in
its own file in `configs/`.
"""

from ml_collections import ConfigDict

# Mean colour of ImageNet as the Caffe networks subtract it, RGB in 0..255:
# FCN's voc_layers.py; DeepLab's and DeconvNet's prototxts round it.
CAFFE_MEAN = (122.67892, 116.66877, 104.00699)


def caffe_sgd(c: ConfigDict) -> None:
  """SGD as the Caffe networks of 2014 to 2016 had it.

  Momentum 0.9, decay 5e-4; biases learn twice as fast and do not decay
  (lr_mult and decay_mult of their prototxts).
  """
  c.optimizer.update(
    name="sgd",
    momentum=0.9,
    weight_decay=5e-4,
    no_decay=("bias$",),
    multipliers=(("bias$", 2.0),),
  )


def caffe_input(c: ConfigDict, mean=CAFFE_MEAN) -> None:
  """Pixels 0..255 less a mean colour, not divided by a deviation."""
  c.data.mean = tuple(value / 255 for value in mean)
  c.data.std = (1 / 255,) * 3


def from_scratch(c: ConfigDict, *, learning_rate: float, steps: int) -> None:
  """What trains a narrow network from random weights in minutes.

  AdamW, a cosine after a short warm-up, and an average of the weights.
  """
  c.optimizer.update(
    name="adamw",
    learning_rate=learning_rate,
    weight_decay=0.01,
    no_decay=("(bias|scale)$",),
    multipliers=(),
    ema_decay=0.98,
  )
  c.schedule.update(name="cosine", warmup_steps=50)
  c.train.update(steps=steps, batch_size=16, eval_every=steps // 2)
