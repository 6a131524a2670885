"""Deformable convolution, v1 and v2, in pure JAX.

The idea (Dai et al. 2017, arXiv:1703.06211, Eq. 2-4): each tap p_k of the
kernel reads the input at p + p_k + dp_k by bilinear sampling, where the offset
dp_k is itself computed from the input:

  y(p) = sum_k w_k x(p + p_k + dp_k) m_k.

v1 has m_k = 1; v2 (Zhu et al. 2018, arXiv:1811.11168, Eq. 1) learns the
modulation m_k = sigmoid(...). Initial offsets are zero, so that v1 starts as
the plain convolution and v2 as half of it, since sigmoid(0) = 1/2.

Layout and border rule are those of torchvision.ops.deform_conv2d. Offset
channel `2 (g k^2 + t)` is dy, and the next one dx, of tap t (row-major) in
offset group g; the mask channel is `g k^2 + t`. Each of the four neighbours of
a position counts as zero if it lies outside the image.

Taps are summed one at a time and recomputed for the gradient. Memory then holds
a few sampled copies of the input, whereas im2col would hold k^2 of them.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from jaxseg.layers.bilinear import sample_bilinear
from jaxseg.layers.conv import (
  Conv,
  kaiming_fan_out,
  promoted_with_parameters,
)


def _tap_grids(x, kernel, strides, padding, dilation):
  """Returns undeformed positions: `[taps, ho]` rows, `[taps, wo]` columns."""
  grids = []
  for size, k in zip(x.shape[1:3], kernel.shape[:2], strict=True):
    pad = dilation * (k - 1) // 2 if padding is None else padding
    out = (size + 2 * pad - dilation * (k - 1) - 1) // strides + 1
    grids.append(
      np.arange(k)[:, None] * dilation + np.arange(out) * strides - pad
    )
  rows, columns = grids
  return np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), 1))


def deform_conv2d(
  x: Float[Array, "n h w c"],
  offset: Float[Array, "n ho wo offsets"],
  kernel: Float[Array, "kh kw i f"],
  mask: Float[Array, "n ho wo masks"] | None = None,
  *,
  strides: int = 1,
  padding: int | None = None,
  dilation: int = 1,
  groups: int = 1,
  offset_groups: int = 1,
) -> Float[Array, "n ho wo f"]:
  """Convolves `x` at displaced positions.

  Args:
    x: Input.
    offset: Displacements in input pixels, `2 * offset_groups * kh * kw`
      channels. Positions are computed in float32 or wider.
    kernel: Kernel, with `i = c / groups`.
    mask: Modulation, `offset_groups * kh * kw` channels; None means ones.
    strides: Spacing of the output pixels, in input pixels.
    padding: Rows and columns of zeros on every side; None keeps the size at
      stride 1.
    dilation: Spacing of the undeformed taps.
    groups: Number of channel groups of the kernel.
    offset_groups: Number of contiguous blocks of channels with offsets of their
      own.
  """
  n, _, _, c = x.shape
  kh, kw, _, features = kernel.shape
  taps, ho, wo = kh * kw, *offset.shape[1:3]
  rows, columns = _tap_grids(x, kernel, strides, padding, dilation)
  precise = jnp.promote_types(offset.dtype, jnp.float32)

  def by_tap(a, *last):
    a = a.astype(precise).reshape(n, ho, wo, offset_groups, taps, *last)
    return jnp.moveaxis(a, (4, 3), (0, 2))

  offset = by_tap(offset, 2)
  row = rows[:, None, None, :, None] + offset[..., 0]
  column = columns[:, None, None, None, :] + offset[..., 1]
  scale = None if mask is None else by_tap(mask)
  # Each offset group is a plane of its own: [n, groups, h, w, c / groups].
  planes = jnp.moveaxis(
    x.reshape(*x.shape[:3], offset_groups, c // offset_groups), 3, 1
  )

  sample = jax.vmap(jax.vmap(functools.partial(sample_bilinear, border="zero")))

  # Without the checkpoint, the gradient would keep the samples of every tap.
  @jax.checkpoint
  def add_tap(total, tap):
    row, column, scale, weight = tap
    sampled = sample(planes, row, column)
    if scale is not None:
      sampled = sampled * scale[..., None]
    sampled = jnp.moveaxis(sampled, 1, 3).astype(x.dtype)
    sampled = sampled.reshape(n, ho, wo, groups, c // groups)
    weight = weight.reshape(c // groups, groups, features // groups)
    product = jnp.einsum(
      "nhwgi,igf->nhwgf",
      sampled,
      weight,
      preferred_element_type=total.dtype,
    )
    return total + product.reshape(total.shape), None

  total = jnp.zeros((n, ho, wo, features), precise)
  weights = kernel.reshape(taps, c // groups, features)
  total, _ = jax.lax.scan(add_tap, total, (row, column, scale, weights))
  return total.astype(x.dtype)


class DeformableConv(nn.Module):
  """Convolution with learned offsets, a substitute for `Conv`.

  Attributes:
    features: Number of output channels.
    kernel_size: Side of the square kernel.
    strides: Spacing of the output pixels, in input pixels.
    dilation: Spacing of the undeformed taps.
    groups: Number of channel groups.
    modulated: Whether to multiply taps by a sigmoid mask (v2).
    offset_groups: Number of blocks of input channels with offsets of their own.
    offset_dilation: Dilation of the convolution that computes the offsets; None
      means 1 for v1 (as in the authors' DeepLab) and `dilation` for v2.
    mask_scale: Factor on the sigmoid; with 2.0, v2 starts as the plain
      convolution.
    use_bias: Whether to add a bias.
    kernel_init: Initialiser of the kernel; offsets start at zero.
    bias_init: Initialiser of the bias.
    dtype: Computation dtype; offsets are computed in float32 or wider.
    param_dtype: Dtype of the parameters.
  """

  features: int
  kernel_size: int = 3
  strides: int = 1
  dilation: int = 1
  groups: int = 1
  modulated: bool = False
  offset_groups: int = 1
  offset_dilation: int | None = None
  mask_scale: float = 1.0
  use_bias: bool = True
  kernel_init: Callable[..., Any] = kaiming_fan_out
  bias_init: Callable[..., Any] = nn.initializers.zeros_init()
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    k, taps = self.kernel_size, self.offset_groups * self.kernel_size**2
    offset_dilation = self.offset_dilation
    if offset_dilation is None:
      offset_dilation = self.dilation if self.modulated else 1
    offset = Conv(
      3 * taps if self.modulated else 2 * taps,
      k,
      strides=self.strides,
      dilation=offset_dilation,
      kernel_init=nn.initializers.zeros_init(),
      # A bfloat16 offset of 16 pixels would be off by up to 1/16 of a pixel.
      dtype=jnp.promote_types(x.dtype, jnp.float32),
      param_dtype=self.param_dtype,
      name="offset",
    )(x)
    mask = None
    if self.modulated:
      # The first 2 k^2 channels are offsets, the last k^2 modulations (v2,
      # Sec. 3.2).
      mask = self.mask_scale * nn.sigmoid(offset[..., 2 * taps :])
      offset = offset[..., : 2 * taps]
    shape = (k, k, x.shape[-1] // self.groups, self.features)
    x, kernel, bias = promoted_with_parameters(self, x, shape)
    y = deform_conv2d(
      x,
      offset,
      kernel,
      mask,
      strides=self.strides,
      dilation=self.dilation,
      groups=self.groups,
      offset_groups=self.offset_groups,
    )
    return y if bias is None else y + bias
