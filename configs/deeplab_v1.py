"""DeepLab v1 (Chen et al. 2015): python train.py --config=configs/deeplab_v1.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`. LargeFOV is the default; the other fields of view and
the multi-scale branches are variants, `:camvid,fov4x4`. Add the dense CRF to
the evaluation with `--config.eval.crf=deeplab_v1_largefov`, and start from
ImageNet with `--config.init.backbone=vgg16.npz`.

The recipe of the paper (Sec. 4.1): SGD 0.9, batch 20, learning rate 1e-3 and
ten times that for fc8 (biases twice that), divided by ten every 2000 of 6000
steps, decay 5e-4, crops of 321 mirrored at random, loss on every eighth
pixel. Images are normalised as torchvision's weights expect; Caffe's would
want `recipes.caffe_input`.
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

# fc6: kernel, rate, features (the table in jaxseg/models/deeplab_v1.py).
FIELDS_OF_VIEW = {
  "fov4x4": dict(kernel_size=4, dilation=4, features=4096),
  "fov4x4_rate8": dict(kernel_size=4, dilation=8, features=4096),
  "fov7x7": dict(kernel_size=7, dilation=4, features=4096),
}
VARIANTS = (*FIELDS_OF_VIEW, "msc")


def get_config(arg: str = "") -> ConfigDict:
  """DeepLab v1 on the data preset, and with the variants, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  c = with_data(preset)
  with c.unlocked():
    c.name = "deeplab_v1"
    c.model = ConfigDict(
      dict(
        name="deeplab_v1",
        backbone=dict(name="vgg16", width=64, batch_norm=False),
        features=1024,
        kernel_size=3,
        dilation=12,
        multi_scale_features=128 if "msc" in variants else 0,
        dropout_rate=0.5,
      )
    )
  for variant in variants:
    c.model.update(FIELDS_OF_VIEW.get(variant, {}))
  recipes.caffe_sgd(c)
  c.optimizer.learning_rate = 1e-3
  c.optimizer.multipliers = (
    ("^fc8/kernel$", 10.0),
    ("^fc8/bias$", 20.0),
    ("bias$", 2.0),
  )
  c.schedule.update(name="step", step_fractions=(1 / 3, 2 / 3))
  c.loss.label_stride = 8
  c.augment.update(crop=(321, 321), scale=(1.0, 1.0))
  c.train.update(steps=6000, batch_size=20, eval_every=1000)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Narrow, with batch normalisation, and rates for an 8x8 map."""
  recipes.from_scratch(c, learning_rate=3e-3, steps=1000)
  c.model.backbone.update(width=16, batch_norm=True)
  c.model.update(features=64, dropout_rate=0.1)
  c.model.dilation = min(c.model.dilation, 3)
  c.augment.crop = (64, 64)
  c.loss.label_stride = 1
