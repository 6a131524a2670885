"""DeepLab with deformable convolutions (Dai et al. 2017, arXiv:1703.06211).

The idea (Sec. 2.1, Fig. 2 and 5): the 3x3 convolutions of ResNet-101's last
stage sample at learned positions. A small convolution of the same map computes
the offset of each tap. The rest of the network is deliberately simple, which
isolates the effect of the three deformable layers: 70.7 -> 75.9 mIoU on VOC
2012, 70.3 -> 75.2 on Cityscapes.

Layers are those of the authors' MXNet code (msracver/Deformable-ConvNets,
deeplab): output stride 16 by dilation 2 in the last stage; offsets from an
undilated, zero-initialised 3x3 convolution; strides in the first 1x1
convolutions; fc6 (1x1, 1024 features, ReLU); scores; and a fixed bilinear
upsampling by 16 whose first 8 rows and columns are cropped. Kernels of fc6 and
the scores are initialised from N(0, 0.01). `VARIANTS` has deformable ConvNets
v2 (arXiv:1811.11168) and the baseline without deformable layers.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.errors import UserError
from jaxseg.layers.conv import Conv
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.transposed import bilinear_conv_transpose
from jaxseg.types import Images, Outputs

NORMAL_INIT = nn.initializers.normal(0.01)


class DeformableDeepLab(nn.Module):
  """Maps `[n, h, w, 3]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone with c5 at output stride 16, or any other even one.
    features: Features of fc6.
    norm: Normalisation that `models.create` passes on to the backbone; the
      head has none.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  features: int = 1024
  norm: Callable[..., Any] = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    stride = getattr(self.backbone, "output_stride", 0)
    if not stride or stride % 2:
      raise UserError(
        f"model.backbone.output_stride={stride}: expected 16 or another even "
        "number, by which the bilinear upsampling can enlarge the scores"
      )
    x = self.backbone(image, train=train)["c5"]
    x = Conv(self.features, 1, kernel_init=NORMAL_INIT, name="fc6", **types)(x)
    x = nn.relu(x)
    x = Conv(
      self.num_classes,
      1,
      kernel_init=NORMAL_INIT,
      param_dtype=self.param_dtype,
      name="score",
    )(x)
    x = bilinear_conv_transpose(
      x.astype(jnp.float32), kernel_size=2 * stride, strides=stride
    )
    h, w = image.shape[1:3]
    crop = stride // 2
    return {"logits": x[:, crop : crop + h, crop : crop + w]}


BACKBONE = {
  "name": "resnet101",
  "output_stride": 16,
  "deformable_stages": (4,),
  "stride_in_1x1": True,
  "ceil_mode": True,
  "contract_dilation": False,
}

VARIANTS = {
  # Deformable ConvNets v2 (arXiv:1811.11168): modulated, in three stages.
  "modulated": {
    "backbone": {"deformable_stages": (2, 3, 4), "modulated": True}
  },
  # The paper's baseline, without deformable convolutions.
  "plain": {"backbone": {"deformable_stages": ()}},
}
