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


def fcn(
  c: ConfigDict, *, learning_rate: float, heavy_learning_rate: float = 0.0
) -> None:
  """FCN's: of the CVPR text (Sec. 4.3), or of the released solvers.

  Whole images, unchanged, at a fixed rate: 20 of them for 175 epochs (here of
  CamVid's 367), or, "heavy", one with a loss summed over its pixels.

  Args:
    c: a configuration with its data preset.
    learning_rate: of the text.
    heavy_learning_rate: of the released solver; 0 for the text's recipe.
  """
  caffe_sgd(c)
  c.schedule.name = "constant"
  c.augment.update(crop=c.data.canvas, scale=(1.0, 1.0), flip=False)
  c.optimizer.learning_rate = learning_rate
  c.train.update(steps=3200, batch_size=20, eval_every=400)
  if heavy_learning_rate:
    # Its weights are Caffe's; torchvision's read the presets' normalisation.
    caffe_input(c)
    c.loss.normalise_by = "images"
    c.optimizer.update(learning_rate=heavy_learning_rate, momentum=0.99)
    c.train.update(steps=100_000, batch_size=1, eval_every=4000)
