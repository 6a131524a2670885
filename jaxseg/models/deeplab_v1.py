"""DeepLab v1 (Chen et al. 2015, arXiv:1412.7062).

The idea (Sec. 3.1, Fig. 1): take the stride out of VGG-16's last two pools
and let the convolutions behind them skip pixels instead ("atrous", with
holes), so that scores come at an eighth of the image's resolution instead of
a thirty-second; then a dense CRF (`--config.eval.crf=deeplab_v1_largefov`)
recovers the boundaries. fc6 is where the field of view is chosen (Table 1 of
the PAMI-era text, Sec. 3.2 "controlling the receptive field"):

| variant         | fc6         | features | parameters (21 classes) |
|-----------------|-------------|----------|-------------------------|
| LargeFOV        | 3x3 rate 12 | 1024     | 20,505,429 (default)    |
| 4x4, rate 4     | 4x4 rate 4  | 4096     | 65,140,565 ("DeepLab")  |
| 4x4, rate 8     | 4x4 rate 8  | 4096     | 65,140,565              |
| 7x7             | 7x7 rate 4  | 4096     | 134,346,581             |

Layers are those of the released LargeFOV prototxt: all pools 3x3, those of
stride 2 in ceil mode, an average pool (pool5a) before fc6, fc8 from N(0,
0.01). Score i belongs to pixel 8 i; enlarging is bilinear between them, and
`loss.label_stride=8` is the loss on the label shrunken eight times.

MSc (Sec. 4.2): the image and the first four pools each add 128 features of
their own to fc7's.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.layers.conv import Conv
from jaxseg.layers.dense_conv import DenseConvHead
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import avg_pool
from jaxseg.layers.resize import zoom_bilinear
from jaxseg.types import Images, Outputs

OUTPUT_STRIDE = 8
SCORE_INIT = nn.initializers.normal(0.01)


class MultiScaleBranch(nn.Module):
  """3x3 and 1x1 convolution of one early map, onto the grid of the scores.

  Attributes:
    strides: of the scores in pixels of this map.
    size: height and width of the scores.
  """

  features: int
  strides: int
  size: tuple[int, int]
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    # Ceil-mode pools reach beyond the image: so must these windows.
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


class DeepLabV1(nn.Module):
  """`[n, h, w, 3]` -> `logits` `[n, h, w, num_classes]`.

  Attributes:
    backbone: gives c5 at output stride 8.
    features: of fc6 and fc7.
    kernel_size: of fc6.
    dilation: of fc6.
    average_pool: pool5a, 3x3 of stride 1, before fc6.
    multi_scale_features: of each branch of the MSc variant; 0 without it.
    norm: of the backbone, if it normalises.
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
      maps = (image, *(features[f"c{i}"] for i in range(1, 5)))
      branch = functools.partial(
        MultiScaleBranch,
        self.multi_scale_features,
        size=tuple(x.shape[1:3]),
        **types,
      )
      early = [
        branch(OUTPUT_STRIDE >> min(i, 3), name=f"multi_scale{i}")(y)
        for i, y in enumerate(maps)
      ]
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


BACKBONE = {
  "name": "vgg16",
  "output_stride": OUTPUT_STRIDE,
  "pool_window": 3,
  "ceil_mode": True,
  "dilate_pools": False,
}
