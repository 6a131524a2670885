"""Parts of recipes that several configurations share.

Each changes a configuration in place. What only one network does stands in
its own file in `configs/`.
"""

from ml_collections import ConfigDict

from jaxseg.config import parse_arg, with_data
from jaxseg.data.datasets import DATASETS

# Mean colour of ImageNet as the Caffe networks subtract it, RGB in 0..255:
# FCN's voc_layers.py; DeepLab's and DeconvNet's prototxts round it.
CAFFE_MEAN = (122.67892, 116.66877, 104.00699)

CAMVID_IMAGES = 367  # for training
# Share of the training pixels ** -0.4, scaled to a mean of 1 over the pixels:
# rare classes count more, not as much more as by median frequency.
CAMVID_WEIGHTS = (
  0.94, 0.79, 2.82, 0.73, 1.32, 1.07, 2.71, 2.47, 1.53, 3.46, 3.72,
)  # fmt: skip


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


def deeplab_sgd(c: ConfigDict, *, weight_decay: float) -> None:
  """SGD of DeepLab v3 and v3+ (research/deeplab, train.py).

  Learning rate 0.007 for a batch of 16, momentum 0.9. Kernels alone decay,
  depthwise ones excepted; the only bias, the scores', learns twice as fast.
  """
  c.optimizer.update(
    learning_rate=0.007,
    weight_decay=weight_decay,
    no_decay=("(bias|scale|depthwise/conv/kernel)$",),
    multipliers=(("^classifier/bias$", 2.0),),
  )


def adamw(c: ConfigDict, *, learning_rate: float) -> None:
  """AdamW; biases and scales do not decay."""
  c.optimizer.update(
    name="adamw",
    learning_rate=learning_rate,
    weight_decay=0.01,
    no_decay=("(bias|scale)$",),
  )


def from_scratch(c: ConfigDict, *, learning_rate: float, steps: int) -> None:
  """What trains a narrow network from random weights in minutes.

  AdamW, a cosine after a short warm-up, an average of the weights, and the
  running averages of the norms as they are.
  """
  adamw(c, learning_rate=learning_rate)
  c.optimizer.update(multipliers=(), ema_decay=0.98)
  c.schedule.update(name="cosine", warmup_steps=50)
  c.train.update(steps=steps, batch_size=16, eval_every=steps // 2)
  c.train.norm_batches = 0


def half_size(c: ConfigDict) -> None:
  """Training from random weights on images of half the size.

  Half an hour on two CPU cores for a ResNet-18 on CamVid. Evaluation shrinks
  the images likewise and scores at their full size.
  """
  from_scratch(c, learning_rate=1e-3, steps=1200)
  c.optimizer.update(weight_decay=0.02, ema_decay=0.99)
  c.schedule.name = "poly"
  c.augment.update(crop=(184, 240), scale=(0.35, 0.9))
  c.augment.update(brightness=0.3, contrast=0.3, saturation=0.3)
  c.train.update(batch_size=8, eval_every=300, checkpoint_every=300)
  c.eval.update(scales=(0.5,), batch_size=8)
  if c.data.name == "camvid":
    c.loss.class_weights = CAMVID_WEIGHTS


def segnet(
  c: ConfigDict, *, learning_rate: float, steps: int, batch_size: int
) -> None:
  """SegNet's, of the tutorial's solvers and prototxts.

  A fixed rate, images unchanged, classes weighted by median frequency (as
  published, or computed from the masks), the loss divided by the number of
  pixels, and statistics of the norms over all of CamVid's 367 training images.
  """
  caffe_sgd(c)
  c.augment.update(scale=(1.0, 1.0), flip=False)
  c.loss.class_weights = DATASETS[c.data.name].class_weights
  c.loss.update(balance="median_frequency", normalise_by="count")
  c.optimizer.learning_rate = learning_rate
  c.schedule.name = "constant"
  c.train.update(steps=steps, batch_size=batch_size, eval_every=1000)
  c.train.norm_batches = -(-CAMVID_IMAGES // batch_size)


def small_segnet(c: ConfigDict, *, learning_rate: float, steps: int) -> None:
  """What trains a narrow SegNet from random weights in minutes."""
  from_scratch(c, learning_rate=learning_rate, steps=steps)
  c.augment.flip = True
  c.loss.balance = ""
  c.eval.batch_size = 50


def fc_densenet(name: str, preset: str, **fields) -> ConfigDict:
  """A configuration of FC-DenseNet (config/FC-DenseNet103.py and train.py).

  RMSprop 1e-3, multiplied by 0.995 after each epoch (of CamVid's 367 images
  in threes), at most 750 epochs, crops of 224, L2 of 1e-4 on all but biases,
  whose gradient is 2e-4 w there. Evaluation normalises by the batch, so one
  image is a batch: 360x480 pixels are about as many as three crops, and no
  padding enters. The authors tested with ten.

  Args:
    name: of the network.
    preset: of the data.
    **fields: of the network: `down_layers`, `bottleneck_layers`, `growth`.
  """
  c = with_data(preset)
  with c.unlocked():
    c.name = name
    c.model = ConfigDict(
      dict(
        name=name,
        **fields,
        stem_features=48,
        dropout_rate=0.2,
        batch_statistics="batch",
      )
    )
  epoch = CAMVID_IMAGES // 3
  c.optimizer.update(
    name="rmsprop",
    learning_rate=1e-3,
    momentum=0.0,
    decay_rate=0.9,
    epsilon=1e-6,
    weight_decay=2e-4,
    no_decay=("bias$",),
  )
  c.schedule.update(name="exponential", decay_rate=0.995, decay_steps=epoch)
  c.augment.update(crop=(224, 224), scale=(1.0, 1.0), flip=True)
  c.train.update(steps=750 * epoch, batch_size=3, eval_every=10 * epoch)
  c.train.checkpoint_every = 10 * epoch
  c.eval.batch_size = 1
  return c


def small_fc_densenet(
  c: ConfigDict, *, down_layers: tuple[int, ...], bottleneck_layers: int
) -> None:
  """Three poolings and narrow blocks."""
  from_scratch(c, learning_rate=4e-3, steps=800)
  c.augment.crop = c.data.canvas
  c.model.update(down_layers=down_layers, bottleneck_layers=bottleneck_layers)
  c.model.update(growth=8, stem_features=16)
  c.eval.batch_size = 50


FCN_VARIANTS = ("heavy",)


def fcn(
  name: str, arg: str, *, learning_rate: float, stage: bool = True
) -> ConfigDict:
  """A configuration of FCN on VGG-16, in one of its stages.

  Of the CVPR text (Sec. 4.3), or, by the variant "heavy", of the released
  solver, whose loss is summed over the pixels of an image: its rates are a
  millionth of the text's.

  Args:
    name: of the network.
    arg: data preset and variants.
    learning_rate: of the text.
    stage: whether the network adds upsampling to that of an earlier one,
      which learns where the text's recipe is followed.
  """
  preset, variants = parse_arg(arg, FCN_VARIANTS)
  heavy = "heavy" in variants and preset != "shapes"
  c = with_data(preset)
  with c.unlocked():
    c.name = name
    c.model = ConfigDict(
      dict(
        name=name,
        backbone=dict(name="vgg16", width=64, padding=100),
        learned_upsampling="intermediate" if stage and not heavy else "none",
        head_features=4096,
        head_kernel_size=7,
        dropout_rate=0.5,
      )
    )
  whole_images(c, learning_rate=learning_rate)
  if heavy:
    # Its weights are Caffe's; torchvision's read the presets' normalisation.
    caffe_input(c)
    c.loss.normalise_by = "images"
    c.optimizer.update(learning_rate=1e-6 * learning_rate, momentum=0.99)
    c.train.update(steps=100_000, batch_size=1, eval_every=4000)
  if preset == "shapes":
    small_fcn(c)
  return c


def whole_images(c: ConfigDict, *, learning_rate: float) -> None:
  """FCN's training: images unchanged, 20 at a time, a fixed rate, 175 epochs.

  Epochs are those of CamVid's 367 images.
  """
  caffe_sgd(c)
  c.schedule.name = "constant"
  c.augment.update(crop=c.data.canvas, scale=(1.0, 1.0), flip=False)
  c.optimizer.learning_rate = learning_rate
  c.train.update(steps=3200, batch_size=20, eval_every=400)


def small_fcn(c: ConfigDict) -> None:
  """Narrow, and for images of 64x64: a smaller fc6 needs less padding."""
  from_scratch(c, learning_rate=3e-3, steps=1000)
  c.model.backbone.update(name="vgg16_bn", width=8, padding=33)
  c.model.update(head_features=64, head_kernel_size=3, dropout_rate=0.1)
  # Stamps of 64x64 that learn draw what no bilinear one can.
  c.model.learned_upsampling = "all"
