"""FCN-AlexNet (Long et al. 2015): --config=configs/fcn_alexnet.py

Data presets: `:shapes` (the default; narrow, minutes on two CPU cores),
`:camvid`, `:folder`.

FCN-32s's recipe at ten times its rate (CVPR text, Sec. 4.3). `,heavy` is the
released solver's: rate 1e-4, the loss averaged over pixels, twenty images
accumulated one by one. The biases of conv1 to conv5 learn and decay like
weights (its prototxt).
"""

from ml_collections import ConfigDict

from jaxseg import recipes
from jaxseg.config import parse_arg, with_data

VARIANTS = ("heavy",)


def get_config(arg: str = "") -> ConfigDict:
  """FCN-AlexNet on the data preset, and with the variant, that `arg` names."""
  preset, variants = parse_arg(arg, VARIANTS)
  heavy = "heavy" in variants and preset != "shapes"
  c = with_data(preset)
  with c.unlocked():
    c.name = "fcn_alexnet"
    c.model = ConfigDict(
      dict(
        name="fcn_alexnet",
        backbone=dict(
          name="caffenet", widths=(96, 256, 384, 384, 256), padding=100
        ),
        learned_upsampling="none",
        head_features=4096,
        head_kernel_size=6,
        dropout_rate=0.5,
      )
    )
  recipes.whole_images(c, learning_rate=1e-3)
  c.optimizer.update(
    no_decay=("^(head|score_fr)/.*bias$",),
    multipliers=(("^(head|score_fr)/.*bias$", 2.0),),
  )
  if heavy:
    recipes.caffe_input(c)
    c.optimizer.update(learning_rate=1e-4, accumulate=20)
    c.train.update(steps=100_000, batch_size=1, eval_every=4000)
  if preset == "shapes":
    small(c)
  return c


def small(c: ConfigDict) -> None:
  """Narrow, and for images of 64x64: a smaller fc6 needs less padding."""
  recipes.from_scratch(c, learning_rate=3e-3, steps=1000)
  with c.unlocked():
    c.model.backbone.update(
      widths=(16, 32, 32, 32, 32), padding=51, caffe_init=False
    )
  c.model.update(head_features=64, head_kernel_size=3, dropout_rate=0.1)
  # Stamps of 63x63 that learn draw what no bilinear one can.
  c.model.learned_upsampling = "all"
