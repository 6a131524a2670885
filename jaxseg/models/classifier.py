"""Image classification: any backbone with the head it was published with.

Segmentation networks start from the weights of such classifiers. The output
is `{"logits": [n, num_classes]}`, one row per image. Heads, dropout rates and
initialisers are torchvision's, except CaffeNet's (BVLC) and Xception's
(TensorFlow). K is the number of classes, and dense layers flatten their input
as `[rows, columns, channels]`.

| backbone     | head                                                         |
|--------------|--------------------------------------------------------------|
| AlexNet      | 6x6 adaptive pooling, dense 4096, 4096, K, dropout 0.5       |
| VGG          | 7x7 adaptive pooling, dense 4096, 4096, K, dropout 0.5       |
| GoogLeNet    | mean, dropout 0.2, dense K; two auxiliary heads              |
| ResNet       | mean, dense K                                                |
| DenseNet     | mean, dense K                                                |
| EfficientNet | 1x1 to 4 times c5, mean, dropout 0.2 to 0.5, dense K         |
| MobileNetV2  | 1x1 to 1280, mean, dropout 0.2, dense K                      |
| Xception     | mean, dropout 0.5, dense K                                   |
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxseg.backbones.alexnet import AlexNet
from jaxseg.backbones.densenet import DenseNet
from jaxseg.backbones.efficientnet import EfficientNet
from jaxseg.backbones.googlenet import GoogLeNet
from jaxseg.backbones.mobilenet_v2 import MobileNetV2
from jaxseg.backbones.vgg import VGG
from jaxseg.backbones.widths import round_width
from jaxseg.backbones.xception import Xception
from jaxseg.layers.conv import ConvNormAct, torch_uniform, torch_uniform_bias
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.pool import adaptive_avg_pool
from jaxseg.types import Images, Outputs

Initializer = Callable[..., Any]
ZEROS = nn.initializers.zeros_init()
GAUSSIAN = nn.initializers.normal(0.01)
# Uniform on +-1 / sqrt(features).
UNIFORM_FAN_OUT = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")


class Classifier(nn.Module):
  """Classifies images: `[n, h, w, 3]` to float32 `logits` `[n, num_classes]`.

  With GoogLeNet the outputs also include `aux_4a` and `aux_4d`, of the same
  shape; the paper trains each with loss weight 0.3 (Sec. 5).

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone; the published heads were trained at output stride 32.
    aux: Whether GoogLeNet has its auxiliary heads.
    dropout_rate: Dropout rate of the head; None is the published rate.
    head_features: Features of the head's hidden layers; None is the published
      number.
    norm: Factory of the head's normalisation layers; None is the backbone's.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  aux: bool = True
  dropout_rate: float | None = None
  head_features: int | None = None
  norm: Callable[..., Any] | None = None
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    backbone = self.backbone
    features = backbone(image, train=train)
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    conv = functools.partial(
      ConvNormAct,
      norm=self.norm or getattr(backbone, "norm", BatchNorm),
      act=getattr(backbone, "act", nn.relu),
      **types,
    )
    head = paper_head(backbone, features["c5"], conv=conv, **types)
    if self.head_features is not None:
      head = functools.partial(head, features=self.head_features)
    if self.dropout_rate is not None:
      head = functools.partial(head, dropout_rate=self.dropout_rate)
    head = head(self.num_classes, name="head")
    outputs = {"logits": head(features["c5"], train=train)}
    if self.aux and isinstance(backbone, GoogLeNet):
      div = backbone.width_div
      for block in ("4a", "4d"):
        outputs[f"aux_{block}"] = AuxiliaryHead(
          self.num_classes,
          functools.partial(conv, kernel_init=backbone.kernel_init),
          128 // div,
          1024 // div,
          **types,
          name=f"aux_{block}",
        )(features[f"inception{block}"], train=train)
    return outputs


def paper_head(
  backbone: nn.Module, c5: jax.Array, *, conv: Callable[..., Any], **types
) -> Callable[..., nn.Module]:
  """Returns a factory of the head that a backbone was published with.

  Args:
    backbone: Backbone of the classifier.
    c5: Last feature map of the backbone.
    conv: Factory of `ConvNormAct`.
    **types: `dtype` and `param_dtype` of the dense layers.

  Returns:
    A module class with all fields bound except `num_classes`, and optionally
    `features` and `dropout_rate`.
  """
  dense_head = functools.partial(DenseHead, **types)
  pooled_head = functools.partial(PooledHead, conv=conv)
  match backbone:
    case AlexNet(caffe_init=True):
      return functools.partial(
        dense_head,
        bins=6,
        kernel_init=nn.initializers.normal(0.005),
        bias_init=nn.initializers.ones_init(),
      )
    case AlexNet():
      return functools.partial(
        dense_head,
        bins=6,
        dropout_first=True,
        kernel_init=torch_uniform,
        bias_init=None,
        last_kernel_init=torch_uniform,
        last_bias_init=None,
      )
    case VGG():
      return functools.partial(dense_head, bins=7)
    case GoogLeNet():
      return functools.partial(
        pooled_head, dropout_rate=0.2, kernel_init=GAUSSIAN
      )
    case DenseNet():
      return functools.partial(pooled_head, bias_init=ZEROS)
    case EfficientNet(dropout_rate=rate):
      return functools.partial(
        pooled_head,
        features=4 * c5.shape[-1],
        dropout_rate=rate,
        kernel_init=UNIFORM_FAN_OUT,
        bias_init=ZEROS,
      )
    case MobileNetV2(width_mult=width_mult):
      return functools.partial(
        pooled_head,
        features=round_width(1280 * max(1.0, width_mult)),
        dropout_rate=0.2,
        kernel_init=GAUSSIAN,
        bias_init=ZEROS,
      )
    case Xception(kernel_init=kernel_init):
      return functools.partial(
        pooled_head,
        dropout_rate=0.5,
        kernel_init=kernel_init,
        bias_init=ZEROS,
      )
  return pooled_head


class DenseHead(nn.Module):
  """Adaptive pooling, two hidden dense layers with ReLU, and a classifier.

  Maps `[n, h, w, c]` to float32 logits `[n, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    bins: Side of the pooled map.
    features: Features of each hidden layer.
    dropout_rate: Dropout rate at both hidden layers.
    dropout_first: Whether dropout precedes each hidden layer (torchvision's
      AlexNet) instead of following it.
    kernel_init: Initialiser of the hidden kernels.
    bias_init: Initialiser of the hidden biases; None is PyTorch's default.
    last_kernel_init: Initialiser of the classifier's kernel.
    last_bias_init: Initialiser of the classifier's bias; None is PyTorch's
      default.
    dtype: Computation dtype of the hidden layers.
    param_dtype: Dtype of the hidden layers' parameters.
  """

  num_classes: int
  bins: int
  features: int = 4096
  dropout_rate: float = 0.5
  dropout_first: bool = False
  kernel_init: Initializer = GAUSSIAN
  bias_init: Initializer | None = ZEROS
  last_kernel_init: Initializer = GAUSSIAN
  last_bias_init: Initializer | None = ZEROS
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = adaptive_avg_pool(x, self.bins)
    x = x.reshape(x.shape[0], -1)
    for name in ("fc6", "fc7"):
      dropout = nn.Dropout(self.dropout_rate, name=f"{name}_dropout")
      if self.dropout_first:
        x = dropout(x, deterministic=not train)
      x = dense(
        x,
        self.features,
        kernel_init=self.kernel_init,
        bias_init=self.bias_init,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=name,
      )
      x = nn.relu(x)
      if not self.dropout_first:
        x = dropout(x, deterministic=not train)
    x = dense(
      x,
      self.num_classes,
      kernel_init=self.last_kernel_init,
      bias_init=self.last_bias_init,
      name="classifier",
    )
    return x.astype(jnp.float32)


class PooledHead(nn.Module):
  """Optional 1x1 convolution, mean over all pixels, dropout, dense layer.

  Maps `[n, h, w, c]` to float32 logits `[n, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    features: Features of the 1x1 convolution; 0 omits it.
    dropout_rate: Dropout rate before the dense layer.
    conv: Factory of `ConvNormAct`.
    kernel_init: Initialiser of the dense kernel.
    bias_init: Initialiser of the dense bias; None is PyTorch's default.
  """

  num_classes: int
  features: int = 0
  dropout_rate: float = 0.0
  conv: Callable[..., Any] = ConvNormAct
  kernel_init: Initializer = torch_uniform
  bias_init: Initializer | None = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    if self.features:
      x = self.conv(self.features, 1, name="conv")(x, train=train)
    x = jnp.mean(x, axis=(1, 2))
    x = nn.Dropout(self.dropout_rate, name="dropout")(
      x, deterministic=not train
    )
    x = dense(
      x,
      self.num_classes,
      kernel_init=self.kernel_init,
      bias_init=self.bias_init,
      name="classifier",
    )
    return x.astype(jnp.float32)


class AuxiliaryHead(nn.Module):
  """GoogLeNet's auxiliary classifier (Sec. 5).

  4x4 adaptive pooling, 1x1 convolution, dense layer with ReLU, dropout, and a
  dense layer to float32 logits `[n, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    conv: Factory of `ConvNormAct`.
    features: Features of the 1x1 convolution.
    hidden: Features of the hidden dense layer.
    dropout_rate: Dropout rate before the last dense layer.
    dtype: Computation dtype of the hidden dense layer.
    param_dtype: Dtype of the hidden dense layer's parameters.
  """

  num_classes: int
  conv: Callable[..., Any]
  features: int = 128
  hidden: int = 1024
  dropout_rate: float = 0.7
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    init = {"kernel_init": GAUSSIAN, "bias_init": None}
    x = adaptive_avg_pool(x, 4)
    x = self.conv(self.features, 1, name="conv")(x, train=train)
    x = x.reshape(x.shape[0], -1)
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    x = nn.relu(dense(x, self.hidden, **init, **types, name="fc"))
    x = nn.Dropout(self.dropout_rate, name="dropout")(
      x, deterministic=not train
    )
    x = dense(x, self.num_classes, **init, name="classifier")
    return x.astype(jnp.float32)


def dense(
  x: Float[Array, "n c"],
  features: int,
  *,
  kernel_init: Initializer,
  bias_init: Initializer | None,
  **fields,
) -> Float[Array, "n features"]:
  """Applies a dense layer.

  Args:
    x: Inputs.
    features: Number of outputs.
    kernel_init: Initialiser of the kernel.
    bias_init: Initialiser of the bias; None is PyTorch's default.
    **fields: Other fields of `nn.Dense`, such as `name`.
  """
  return nn.Dense(
    features,
    kernel_init=kernel_init,
    bias_init=bias_init or torch_uniform_bias(x.shape[-1]),
    **fields,
  )(x)


BACKBONE = {"name": "resnet50"}
