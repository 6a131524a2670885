"""Upsampling that is neither resizing, unpooling nor transposed convolution.

- `bed_of_nails`: each value on the top-left corner of its cell, zeros around.
- `pixel_shuffle`: channels become pixels (Shi et al. 2016, arXiv:1609.05158,
  Eq. 4), in PyTorch's channel order.
- `ResizeConv`: resize, then convolve; every output pixel is reached by
  equally many weights, hence no checkerboard (Odena et al. 2016,
  distill.pub/2016/deconv-checkerboard).

Resizing lives in `resize`, unpooling in `pool`, stamps in `transposed`.
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
  """`y[i * factor, j * factor] = x[i, j]`, zero elsewhere."""
  nails = (0, factor - 1, factor - 1)
  config = ((0, 0, 0), nails, nails, (0, 0, 0))
  return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def pixel_shuffle(
  x: Shaped[Array, "n h w c"], factor: int
) -> Shaped[Array, "n h2 w2 c2"]:
  """Lays out groups of `factor ** 2` channels as `factor x factor` pixels.

  Channel `c * factor ** 2 + i * factor + j` becomes channel c of the pixel in
  row i, column j of its cell (torch.nn.PixelShuffle).
  """
  n, h, w, c = x.shape
  x = x.reshape(n, h, w, c // factor**2, factor, factor)
  x = x.transpose(0, 1, 4, 2, 5, 3)
  return x.reshape(n, h * factor, w * factor, c // factor**2)


class ResizeConv(nn.Module):
  """Enlarges by an integer factor, then convolves.

  Attributes:
    features: output channels.
    kernel_size: side of the convolution's kernel.
    factor: how many times larger.
    method: "nearest" (what Odena et al. prefer) or "bilinear".
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
        f"method={self.method!r}: expected 'nearest' or 'bilinear'"
      )
    return Conv(
      self.features,
      self.kernel_size,
      use_bias=self.use_bias,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="conv",
    )(x)
