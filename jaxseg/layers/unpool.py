"""Unpooling by the encoder's maxima, as in SegNet and DeconvNet.

The idea (Noh et al. 2015, arXiv:1505.04366, Fig. 3; Badrinarayanan et al.
2017, arXiv:1511.00561, Fig. 3): a decoder puts each value back at the position
of the maximum that the encoder pooled, and zeros elsewhere. Edges keep their
position, and upsampling has no parameters.
"""

from jaxtyping import Array, Float

from jaxseg.layers.pool import max_pool_with_indices, max_unpool


def unpool(
  y: Float[Array, "n h2 w2 c"],
  encoded: Float[Array, "n h w c"],
  ceil_mode: bool,
) -> Float[Array, "n h w c"]:
  """Places each value of `y` at the maximum of a 2x2 window of `encoded`.

  Args:
    y: Map to upsample.
    encoded: Map that the encoder pooled by 2x2 windows of stride 2.
    ceil_mode: Whether that pooling kept the last, partial windows.

  Returns:
    A map of the size of `encoded`; zero except at the maxima.
  """
  _, indices = max_pool_with_indices(encoded, 2, ceil_mode=ceil_mode)
  height, width = encoded.shape[1:3]
  return max_unpool(y, indices, (height, width), window=2)
