"""Batch normalisation as in SegNet's and DeconvNet's Caffe.

Epsilon is 1e-9 in their Caffe layer (alexgkendall/caffe-segnet), and both
prototxts initialise the shift to 0.001.
"""

import functools

import flax.linen as nn

from jaxseg.layers.norm import BatchNorm

# So small an epsilon is safe with any `dtype`: variances are computed in
# float32 in two passes, and the largest factor of the gradient there,
# epsilon ** -1.5, is 3e13. A channel that is constant over the batch returns
# the shift and receives no gradient.
CAFFE_NORM = functools.partial(
  BatchNorm, epsilon=1e-9, bias_init=nn.initializers.constant(0.001)
)
