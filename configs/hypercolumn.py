"""Hypercolumns (Hariharan et al. 2015, arXiv:1411.5752).

  python train.py --config=configs/hypercolumn.py
  python train.py --config=configs/hypercolumn.py:camvid

Words: a data preset; a backbone; `small`. This network classifies every pixel
of an image; the paper's, which classifies those in boxes, is
`jaxseg.models.hypercolumn.BoxHypercolumn`.

The levels are AlexNet's pool2, conv4 and fc7, as in the paper's T-Net. The
paper trains on the boxes of a detector; the recipe here is that of
FCN-AlexNet, a contemporary that trains on whole images.
`--config.init.model` starts from ImageNet, see
`jaxseg/models/convolutionalise.py`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small",)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config("hypercolumn", arg, WORDS)
  # 175 epochs of CamVid\'s 367 images.
  recipes.whole_images(c, learning_rate=1e-3, batch_size=20, steps=3200)
  if "small" in c.words:
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Sets a narrow VGG-11, whose early layers are levels as well."""
  recipes.small(c, learning_rate=3e-3, steps=1000)
  recipes.replace_backbone(c, "vgg11_bn", width=16)
  c.model.levels = ("conv1", "c2", "c4", "fc7")
  c.model.update(head_features=64, head_kernel_size=3)
