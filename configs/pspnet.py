"""PSPNet (Zhao et al. 2017, arXiv:1612.01105).

  python train.py --config=configs/pspnet.py
  python train.py --config=configs/pspnet.py:camvid
  python train.py --config=configs/pspnet.py:folder,laptop
    --config.data.path=DIR

Words: a data preset; a backbone; `small`; `laptop` for two CPU cores; `caffe`
for the released Caffe network and its input (for ResNet-101 add
`--config.model.backbone.stride_in_1x1=False`); `multi_scale` for the evaluation
of the paper's best rows: six scales, each mirrored too, in windows of the
training crop at steps of two thirds.

The recipe of the author's code (hszhao/semseg): SGD with momentum 0.9, a
learning rate of 0.01 and ten times that for the new layers, decay 1e-4,
poly 0.9, batch 16, scales 0.5 to 2, rotation by up to 10 degrees, mirroring, an
auxiliary loss of 0.4. (That code rotates and blurs every second image; here
every image is rotated and none is blurred.)
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "laptop", "caffe", "multi_scale")
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("pspnet", arg, WORDS)
  with c.unlocked():
    c.loss.heads.aux_logits = 0.4
  c.optimizer.update(learning_rate=0.01, momentum=0.9, weight_decay=1e-4)
  c.optimizer.multipliers = (("^(pyramid|head|aux_head)/", 10.0),)
  c.schedule.update(name="poly", power=0.9)
  c.augment.rotation = 10.0
  c.train.update(steps=30_000, batch_size=16, eval_every=1000)
  if "caffe" in c.words:
    caffe(c)
  if "small" in c.words:
    small(c)
  elif "laptop" in c.words:
    laptop(c)
  if "multi_scale" in c.words:
    scales = tuple(c.eval.scales[0] * scale for scale in SCALES)
    c.eval.update(mode="sliding", scales=scales, flip=True)
  return c


def caffe(c: ConfigDict) -> None:
  """Sets the recipe of the released networks (hszhao/PSPNet).

  Biases of the classifiers learn twice as fast as their kernels, running
  averages keep 0.95, and each window is evaluated with its mirror image
  (probabilities are averaged here, scores are added there).
  """
  if c.data.name == "folder":
    c.augment.crop = (473, 473)
  recipes.caffe_input(c, mean=(123.68, 116.779, 103.939))
  c.norm.momentum = 0.95
  biases = ("^(head|aux_head)/classifier/bias$", 20.0)
  c.optimizer.multipliers = (biases, *c.optimizer.multipliers)
  c.eval.update(mode="sliding", flip=True)


def small(c: ConfigDict) -> None:
  """Sets a narrow, short ResNet at output stride 4."""
  recipes.small(c, learning_rate=4e-3, steps=1100, eval_batch_size=50)
  c.augment.rotation = 0.0
  recipes.narrow_resnet(c, output_stride=4)
  c.model.update(head_features=64, aux_features=64)
  if "caffe" in c.words:
    c.augment.crop = c.augment.crop or (128, 128)
    c.model.pool_crop = c.augment.crop[0]


def laptop(c: ConfigDict) -> None:
  """Sets a ResNet-18 at output stride 16, see `recipes.half_size`."""
  recipes.half_size(c)
  c.augment.rotation = 0.0
  recipes.replace_backbone(c, "resnet18", output_stride=16, stem="conv7")
  c.model.update(head_features=256, aux_features=128)
