"""Upsampling layers for your own networks.

No network of jaxseg uses these layers. They are public API for building
decoders and for comparing ways of upsampling:

- `bed_of_nails` puts each value on the top-left corner of its cell and zeros
  around it.
- `pixel_shuffle` turns channels into pixels (Shi et al. 2016, arXiv:1609.05158,
  Eq. 4), in PyTorch's channel order.
- `ResizeConv` resizes, then convolves. Every output pixel is reached by equally
  many weights, so there is no checkerboard (Odena et al. 2016,
  distill.pub/2016/deconv-checkerboard).

Other modules hold the remaining ways: `layers.resize` bilinear and nearest
resizing, `layers.pool` unpooling by indices (`max_unpool`) and by transposition
(`transpose_pool`), and `layers.transposed` transposed convolution.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from jaxseg.layers.conv import Conv
from jaxseg.layers.resize import resize_bilinear, resize_nearest


def bed_of_nails(
  x: Shaped[Array, "n h w c"], factor: int
) -> Shaped[Array, "n h2 w2 c"]:
  """Sets `y[i * factor, j * factor] = x[i, j]`, and zero elsewhere."""
  nails = (0, factor - 1, factor - 1)
  config = ((0, 0, 0), nails, nails, (0, 0, 0))
  return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def pixel_shuffle(
  x: Shaped[Array, "n h w c"], factor: int
) -> Shaped[Array, "n h2 w2 c2"]:
  """Lays out groups of `factor ** 2` channels as `factor x factor` pixels.

  Channel `c * factor ** 2 + i * factor + j` becomes channel c of the pixel in
  row i, column j of its cell (torch.nn.PixelShuffle).

  Raises:
    ValueError: The number of channels is no multiple of `factor ** 2`.
  """
  n, h, w, c = x.shape
  if c % factor**2:
    raise ValueError(
      f"pixel_shuffle: {c} channels; expected a multiple of factor ** 2 = "
      f"{factor**2}"
    )
  x = x.reshape(n, h, w, c // factor**2, factor, factor)
  x = x.transpose(0, 1, 4, 2, 5, 3)
  return x.reshape(n, h * factor, w * factor, c // factor**2)


class ResizeConv(nn.Module):
  """Enlarges by an integer factor, then convolves.

  Attributes:
    features: Number of output channels.
    kernel_size: Side of the kernel of the convolution.
    factor: Magnification.
    method: Way of resizing, "nearest" (preferred by Odena et al.) or
      "bilinear".
    use_bias: Whether to add a bias.
    dtype: Computation dtype.
    param_dtype: Dtype of the parameters.
  """

  features: int
  kernel_size: int = 3
  factor: int = 2
  method: str = "nearest"
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    size = (x.shape[1] * self.factor, x.shape[2] * self.factor)
    if self.method == "nearest":
      x = resize_nearest(x, size)
    elif self.method == "bilinear":
      x = resize_bilinear(x, size, align_corners=False)
    else:
      raise ValueError(
        f"ResizeConv: method={self.method!r}; expected 'nearest' or 'bilinear'"
      )
    return Conv(
      self.features,
      self.kernel_size,
      use_bias=self.use_bias,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="conv",
    )(x)
