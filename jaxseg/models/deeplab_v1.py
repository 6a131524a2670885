"""DeepLab v1 (Chen et al. 2015, arXiv:1412.7062).

The idea (Sec. 3.1, Fig. 1): the last two pools of VGG-16 have stride 1, and
the convolutions after them are dilated ("atrous", with holes), so that scores
have an eighth of the image's resolution instead of a thirty-second. A dense
CRF (`--config.eval.crf=deeplab_v1_largefov`) recovers the boundaries. The
kernel size and dilation of fc6 determine the field of view (Sec. 3.2,
"controlling the receptive field"; Table 1 of arXiv:1606.00915):

| network     | fc6         | features | parameters (21 classes) |
|-------------|-------------|----------|-------------------------|
| LargeFOV    | 3x3 rate 12 | 1024     | 20,505,429 (default)    |
| 4x4, rate 4 | 4x4 rate 4  | 4096     | 65,140,565 ("DeepLab")  |
| 4x4, rate 8 | 4x4 rate 8  | 4096     | 65,140,565              |
| 7x7         | 7x7 rate 4  | 4096     | 134,346,581             |

Layers are those of the released LargeFOV prototxt: all pools are 3x3, those of
stride 2 in ceil mode; an average pool (pool5a) precedes fc6; fc8 is
initialised from N(0, 0.01). Score i belongs to pixel 8 i, and upsampling is
bilinear between these pixels. `loss.label_stride=8` computes the loss on every
eighth pixel of the label.

MSc (Sec. 4, "multi-scale prediction"): the image and the first four pools
each contribute 128 features, which are concatenated with fc7
(`multi_scale_features=128`). `VARIANTS` has the other fields of view.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.layers.conv import Conv
from jaxseg.layers.dense_conv import DenseConvHead
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import avg_pool
from jaxseg.layers.resize import zoom_bilinear
from jaxseg.types import Features, Images, Outputs

OUTPUT_STRIDE = 8
SCORE_INIT = nn.initializers.normal(0.01)


class DeepLabV1(nn.Module):
  """Maps `[n, h, w, 3]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone with c5 at output stride 8, and c1 to c4 for MSc.
    features: Features of fc6 and fc7.
    kernel_size: Kernel size of fc6.
    dilation: Dilation of fc6.
    average_pool: Whether pool5a, a 3x3 average pool of stride 1, precedes fc6.
    multi_scale_features: Features of each MSc branch; 0 omits the branches.
    dropout_rate: Dropout rate after fc6 and fc7.
    norm: Normalisation that `models.create` passes on to the backbone; the
      head has none.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  features: int = 1024
  kernel_size: int = 3
  dilation: int = 12
  average_pool: bool = True
  multi_scale_features: int = 0
  dropout_rate: float = 0.5
  norm: Callable[..., Any] = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    features = self.backbone(image, train=train)
    x = features["c5"]
    if self.average_pool:
      x = avg_pool(x, 3, 1, padding=1)
    x = DenseConvHead(
      self.features,
      self.kernel_size,
      self.dilation,
      padding=None,
      dropout_rate=self.dropout_rate,
      name="head",
      **types,
    )(x, train=train)
    if self.multi_scale_features:
      early = self._early_features(image, features, x.shape[1:3])
      x = jnp.concatenate([x, *early], axis=-1)
    x = Conv(
      self.num_classes,
      1,
      kernel_init=SCORE_INIT,
      param_dtype=self.param_dtype,
      name="fc8",
    )(x)
    x = x.astype(jnp.float32)
    return {"logits": zoom_bilinear(x, OUTPUT_STRIDE, image.shape[1:3])}

  def _early_features(
    self, image: jax.Array, features: Features, size: tuple[int, int]
  ) -> list[jax.Array]:
    """Returns the MSc features of the image and the first four pools."""
    maps = [image, *(features[f"c{i}"] for i in range(1, 5))]
    # Distance between scores, in pixels of each map; pool4 has stride 1.
    strides = (8, 4, 2, 1, 1)
    return [
      MultiScaleBranch(
        self.multi_scale_features,
        stride,
        tuple(size),
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=f"multi_scale{i}",
      )(x)
      for i, (x, stride) in enumerate(zip(maps, strides, strict=True))
    ]


class MultiScaleBranch(nn.Module):
  """A 3x3 and a 1x1 convolution that bring an early map to the scores' grid.

  Attributes:
    features: Features of both convolutions.
    strides: Distance between scores in pixels of this map.
    size: Height and width of the scores.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  features: int
  strides: int
  size: tuple[int, int]
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    # Ceil-mode pools read beyond the bottom and right border. These windows
    # must do so as well to give as many outputs as there are scores.
    padding = tuple(
      (1, max((out - 1) * self.strides + 2 - have, 0))
      for out, have in zip(self.size, x.shape[1:3], strict=True)
    )
    x = Conv(
      self.features, 3, strides=self.strides, padding=padding, name="conv3x3",
      **types,
    )(x)  # fmt: skip
    x = x[:, : self.size[0], : self.size[1]]
    return nn.relu(Conv(self.features, 1, name="conv1x1", **types)(nn.relu(x)))


BACKBONE = {
  "name": "vgg16",
  "output_stride": OUTPUT_STRIDE,
  "pool_window": 3,
  "ceil_mode": True,
  "dilate_pools": False,
}

VARIANTS = {
  "fov4x4": {"kernel_size": 4, "dilation": 4, "features": 4096},
  "fov4x4_rate8": {"kernel_size": 4, "dilation": 8, "features": 4096},
  "fov7x7": {"kernel_size": 7, "dilation": 4, "features": 4096},
}
