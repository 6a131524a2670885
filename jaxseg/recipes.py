"""Parts of recipes that several files in `configs/` share.

`network_config` creates a configuration, and every other function changes one
in place. Settings that only one network uses are in that network's config file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxseg import models
from jaxseg.backbones import BACKBONES
from jaxseg.config import BackboneFields, parse_words, with_data
from jaxseg.data.datasets import DATASETS

# RGB mean of ImageNet in 0..255 that the Caffe networks subtract (voc_layers.py
# of FCN; rounded in the prototxts of DeepLab and DeconvNet).
CAFFE_MEAN = (122.67892, 116.66877, 104.00699)

CAMVID_IMAGES = 367  # Number of training images.
# Class weights (share of the training pixels) ** -0.4, scaled to a mean of 1
# over the pixels. They differ less from 1 than those of median frequency.
CAMVID_WEIGHTS = (
  0.94, 0.79, 2.82, 0.73, 1.32, 1.07, 2.71, 2.47, 1.53, 3.46, 3.72,
)  # fmt: skip


def network_config(
  network: str,
  arg: str,
  words: Sequence[str] = (),
  *,
  with_backbone: Sequence[str] = (),
  exclusive: Sequence[Sequence[str]] = (),
) -> ConfigDict:
  """Returns the base configuration with a paper's network and a data preset.

  A word that is the name of a variant or of a backbone selects it.

  The variants of a network exclude each other. `laptop` excludes `small`, and
  `shapes`, whose images are too small to be halved. The name of a backbone
  excludes `small`, `laptop` and the words in `with_backbone`.

  Args:
    network: Key of `models.MODELS`.
    arg: Words after the colon in `--config=configs/name.py:words`.
    words: Words of the config file, besides data presets and backbones.
    with_backbone: Those of `words` that select a backbone, besides `small` and
      `laptop`.
    exclusive: Further groups of words of which at most one may be given.

  Raises:
    UserError: A word is unknown, or words exclude each other.
  """
  variants = tuple(models.VARIANTS.get(network, ()))
  backbones = tuple(BACKBONES) if network in models.PAPER_BACKBONES else ()
  groups = [variants, backbones, ("small", "laptop"), ("shapes", "laptop")]
  for word in ("small", "laptop", *with_backbone):
    groups.append((word, *backbones))
  chosen = parse_words(
    arg, words, backbones=backbones, exclusive=(*groups, *exclusive)
  )
  c = with_data(chosen[0])
  backbone = next((word for word in chosen if word in backbones), None)
  with c.unlocked():
    c.name = network
    c.words = chosen
    c.model = _overridable(
      models.fields(network, backbone=backbone, variant=_variant(c))
    )
  return c


def replace_backbone(c: ConfigDict, name: str, **fields) -> None:
  """Replaces the backbone.

  Fields that the paper sets on its backbone apply to the new one as far as it
  has them.

  Args:
    c: Configuration. One of its words may select a variant of the network.
    name: Key of `BACKBONES`.
    **fields: Fields of the backbone that differ.
  """
  network = models.fields(
    c.model.name, backbone={"name": name, **fields}, variant=_variant(c)
  )
  with c.unlocked():
    c.model.backbone = _overridable(network).backbone


def _variant(c: ConfigDict) -> str:
  """Returns the variant that a word selects, or "paper"."""
  variants = models.VARIANTS.get(c.name, ())
  return next((word for word in c.words if word in variants), "paper")


def _overridable(fields: Mapping[str, Any]) -> ConfigDict:
  """Returns fields of a network as a ConfigDict with a typed value for each.

  None becomes a placeholder, which can be overridden by any value.
  """
  result = ConfigDict()
  for key, value in fields.items():
    if value is None:
      value = config_dict.placeholder(object)
    elif key == "backbone":
      value = BackboneFields(_overridable(value))
    result[key] = value
  return result


def caffe_sgd(c: ConfigDict) -> None:
  """Sets the SGD of the Caffe networks of 2014 to 2016.

  Momentum is 0.9 and weight decay 5e-4. Biases learn twice as fast and do not
  decay (lr_mult and decay_mult of their prototxts).
  """
  c.optimizer.update(
    name="sgd",
    momentum=0.9,
    weight_decay=5e-4,
    no_decay=("bias$",),
    multipliers=(("bias$", 2.0),),
  )


def caffe_input(c: ConfigDict, mean=CAFFE_MEAN) -> None:
  """Sets the input of the Caffe networks: 0..255, less `mean`, not scaled."""
  c.data.mean = tuple(value / 255 for value in mean)
  c.data.std = (1 / 255,) * 3


def adamw(c: ConfigDict, *, learning_rate: float) -> None:
  """Sets AdamW with a weight decay of 0.01, except for biases and scales."""
  c.optimizer.update(
    name="adamw",
    learning_rate=learning_rate,
    weight_decay=0.01,
    no_decay=("(bias|scale)$",),
  )


def from_scratch(c: ConfigDict, *, learning_rate: float, steps: int) -> None:
  """Sets a recipe that trains a narrow network from random weights.

  It uses AdamW, batches of 16, a cosine schedule after a short warm-up, and a
  moving average of the parameters. The norms keep their running averages.
  """
  adamw(c, learning_rate=learning_rate)
  c.optimizer.update(multipliers=(), accumulate=1, ema_decay=0.98)
  c.schedule.update(name="cosine", warmup_steps=50)
  c.train.update(steps=steps, batch_size=16, eval_every=steps // 2)
  c.train.norm_batches = 0


def small(
  c: ConfigDict, *, learning_rate: float, steps: int, eval_batch_size: int = 16
) -> None:
  """Sets the recipe of the word `small`, which takes minutes on two CPU cores.

  It is `from_scratch` on crops of at most 128x128 pixels. Larger images are
  evaluated in batches of four.

  Args:
    c: Configuration.
    learning_rate: Peak of the schedule.
    steps: Number of training steps.
    eval_batch_size: Batch size of evaluation if images are not larger than the
      crop.
  """
  from_scratch(c, learning_rate=learning_rate, steps=steps)
  limit_crop(c, 128)
  is_cropped = not c.data.canvas or c.data.canvas != c.augment.crop
  c.eval.batch_size = 4 if is_cropped else eval_batch_size


def limit_crop(c: ConfigDict, largest: int) -> None:
  """Sets a crop of the canvas of at most `largest` pixels a side.

  If the canvas is chosen from the data set, so is the crop.
  """
  c.data.largest_crop = largest
  c.augment.crop = tuple(min(side, largest) for side in c.data.canvas)


def whole_crop(c: ConfigDict) -> None:
  """Sets the canvas as the crop."""
  c.data.largest_crop = 0
  c.augment.crop = c.data.canvas


def halve(
  c: ConfigDict, *, crop: tuple[int, int], scale: tuple[float, float]
) -> None:
  """Sets training and evaluation on images of half the size.

  A canvas that is chosen from the data set is limited to 224 pixels a side
  instead, because its images may be of any size.

  Args:
    c: Configuration.
    crop: Height and width of the crop.
    scale: Range of the random scale, relative to the full size.
  """
  if c.data.canvas:
    c.augment.update(crop=crop, scale=scale)
    c.eval.scales = (0.5,)
    return
  c.data.largest_canvas = 224
  whole_crop(c)
  c.augment.scale = (2 * scale[0], 2 * scale[1])


def narrow_resnet(c: ConfigDict, *, output_stride: int, **fields) -> None:
  """Sets a ResNet-18 of width 16 with one block in its last stage."""
  replace_backbone(
    c,
    "resnet18",
    output_stride=output_stride,
    width=16,
    stage_sizes=(2, 2, 2, 1),
    **fields,
  )


def half_size(c: ConfigDict) -> None:
  """Sets the recipe of the word `laptop` for a ResNet-18 from random weights.

  It trains on images of half the size, see `halve`, which takes half an hour on
  two CPU cores. Evaluation of CamVid halves the images too, and scores at full
  size.
  """
  from_scratch(c, learning_rate=1e-3, steps=1200)
  c.optimizer.update(weight_decay=0.02, ema_decay=0.99)
  c.schedule.name = "poly"
  halve(c, crop=(184, 240), scale=(0.35, 0.9))
  c.augment.update(brightness=0.3, contrast=0.3, saturation=0.3)
  c.train.update(batch_size=8, eval_every=300, checkpoint_every=300)
  c.eval.batch_size = 8
  if c.data.name == "camvid":
    c.loss.class_weights = CAMVID_WEIGHTS


def whole_images(
  c: ConfigDict, *, learning_rate: float, batch_size: int, steps: int
) -> None:
  """Sets SGD at a constant learning rate on whole images, unaugmented."""
  caffe_sgd(c)
  c.schedule.name = "constant"
  whole_crop(c)
  c.augment.update(scale=(1.0, 1.0), flip=False)
  c.optimizer.learning_rate = learning_rate
  c.train.update(steps=steps, batch_size=batch_size, eval_every=400)


def heavy_momentum(
  c: ConfigDict, *, learning_rate: float, momentum: float, steps: int
) -> None:
  """Sets the recipe of FCN's released solvers.

  A step is one image, and the loss is summed over its pixels. The input is
  Caffe's, because these solvers start from Caffe's weights; torchvision's
  weights expect the normalisation of the data presets.
  """
  caffe_input(c)
  c.loss.normalise_by = "images"
  c.optimizer.update(learning_rate=learning_rate, momentum=momentum)
  c.train.update(steps=steps, batch_size=1, eval_every=4000)


def small_fcn(c: ConfigDict) -> None:
  """Sets a narrow FCN with a smaller fc6, which needs less padding."""
  small(c, learning_rate=3e-3, steps=1000)
  c.model.update(head_features=64, head_kernel_size=3, dropout_rate=0.1)
  padding = 33
  if c.data.name != "shapes":
    # A 3x3 kernel with a padding of 33 suits images of 64x64. A 4x4 kernel with
    # a padding of 52 suits any size: its margin is that of the paper's 7x7
    # kernel with a padding of 100.
    c.model.head_kernel_size, padding = 4, 52
  replace_backbone(c, "vgg16_bn", width=8, padding=padding)
  # Learned 64x64 kernels draw finer outlines than bilinear interpolation.
  c.model.learned_upsampling = "all"


def median_frequency(c: ConfigDict) -> None:
  """Sets SegNet's loss, which weights classes by median frequency.

  The sum of the weighted losses is divided by the number of valid pixels. The
  weights are those published for the data set, or are computed from its
  training masks if no weights are published.
  """
  c.loss.class_weights = DATASETS[c.data.name].class_weights
  c.loss.update(balance="median_frequency", normalise_by="count")


def deeplab_sgd(
  c: ConfigDict, *, learning_rate: float, weight_decay: float
) -> None:
  """Sets the SGD of DeepLab v3 and v3+ (train.py of research/deeplab).

  Momentum is 0.9. Weight decay applies to all kernels but the depthwise ones.
  The only bias, that of the classifier, has twice the learning rate.
  """
  c.optimizer.update(
    learning_rate=learning_rate,
    weight_decay=weight_decay,
    no_decay=("(bias|scale|depthwise/conv/kernel)$",),
    multipliers=(("^classifier/bias$", 2.0),),
  )


def epoch_decay(
  c: ConfigDict,
  *,
  epochs: int,
  batch_size: int,
  learning_rate: float,
  rate_decay: float,
) -> None:
  """Sets a learning rate that decays after each epoch of CamVid.

  An epoch is the number of steps that 367 images take, for any data set.

  Args:
    c: Configuration.
    epochs: Number of epochs. The network is evaluated and saved after every
      ten of them.
    batch_size: Number of images in a step.
    learning_rate: Learning rate of the first epoch.
    rate_decay: Factor on the learning rate after each epoch.
  """
  epoch = CAMVID_IMAGES // batch_size
  c.optimizer.learning_rate = learning_rate
  c.schedule.update(
    name="exponential", decay_rate=rate_decay, decay_steps=epoch
  )
  c.train.update(
    steps=epochs * epoch,
    batch_size=batch_size,
    eval_every=10 * epoch,
    checkpoint_every=10 * epoch,
  )


def rmsprop(c: ConfigDict, *, decay_rate: float, weight_decay: float) -> None:
  """Sets RMSprop without momentum (epsilon 1e-6); biases have no decay."""
  c.optimizer.update(
    name="rmsprop",
    momentum=0.0,
    decay_rate=decay_rate,
    epsilon=1e-6,
    weight_decay=weight_decay,
    no_decay=("bias$",),
  )
