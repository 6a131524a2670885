"""Deformable DeepLab (Dai et al. 2017, arXiv:1703.06211).

  python train.py --config=configs/deformable_deeplab.py
  python train.py --config=configs/deformable_deeplab.py:camvid
    --config.init.backbone=resnet101.npz --config.init.skip='("offset",)'

Words: a data preset; a backbone; `small`; `modulated` for deformable ConvNets
v2 (three deformable stages, offsets that learn ten times more slowly); `plain`
for the baseline without deformable convolutions;
`scratch` to train what the paper freezes as ImageNet left it (normalisation,
stem and first stage). The weights above are torchvision's, so strides, pooling
and input are those of torchvision here, not those of Caffe.

The recipe of the authors' code for Cityscapes: SGD with momentum 0.9, decay
5e-4, a learning rate of 5e-4 after a linear warm-up of 1000 steps and a tenth
of it from 40.3 of the 53 epochs on, one whole image a step, mirroring. Biases
learn twice as fast, those of the offsets included; kernels of the offsets have
the plain rate.
"""

from ml_collections import ConfigDict

from jaxseg import recipes

WORDS = ("small", "modulated", "plain", "scratch")
TORCHVISION = dict(stride_in_1x1=False, ceil_mode=False)
FROZEN = (
  (r"^backbone/.*norm/(scale|bias)$", 0.0),
  (r"^backbone/(stem|stage1_)", 0.0),
)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the configuration with the words of `arg`."""
  c = recipes.network_config(
    "deformable_deeplab", arg, WORDS, exclusive=(("small", "scratch"),)
  )
  recipes.replace_backbone(c, c.model.backbone.name, **TORCHVISION)
  recipes.caffe_sgd(c)
  recipes.whole_crop(c)
  c.augment.scale = (1.0, 1.0)
  c.optimizer.learning_rate = 5e-4
  if "modulated" in c.words:
    c.optimizer.multipliers = (
      ("/offset/kernel$", 0.1),
      ("/offset/bias$", 0.2),
      ("bias$", 2.0),
    )
  if "scratch" not in c.words:
    c.norm.frozen = True
    c.optimizer.multipliers = (*FROZEN, *c.optimizer.multipliers)
  c.schedule.update(name="step", step_fractions=(40.336 / 53,))
  c.schedule.update(step_factor=0.1, warmup_steps=1000)
  # 53 epochs of CamVid's 367 images.
  c.train.update(steps=19_451, batch_size=1, eval_every=1000)
  if "small" in c.words:
    recipes.small(c, learning_rate=4e-3, steps=1000)
    recipes.narrow_resnet(c, output_stride=4, **TORCHVISION)
    c.norm.frozen = False
    c.model.features = 64
  return c
