"""Converts kernels from PyTorch's order of axes to jaxseg's.

| layer                  | PyTorch              | jaxseg                |
|------------------------|----------------------|-----------------------|
| convolution            | out, in/groups, h, w | h, w, in/groups, out  |
| transposed convolution | in, out/groups, h, w | h, w, in, out/groups  |
| dense                  | out, in              | in, out               |
| dense after flattening | out, c h w           | h w c, out            |

Depthwise and grouped convolutions need no special case, because both
frameworks keep the channels of a group contiguous. Neither framework flips
the kernel of a transposed convolution.
"""

import numpy as np


def convolution(weight: np.ndarray) -> np.ndarray:
  """Converts `[out, in / groups, h, w]` to `[h, w, in / groups, out]`."""
  return weight.transpose(2, 3, 1, 0)


def transposed_convolution(weight: np.ndarray) -> np.ndarray:
  """Converts `[in, out / groups, h, w]` to `[h, w, in, out / groups]`."""
  return weight.transpose(2, 3, 0, 1)


def dense(weight: np.ndarray) -> np.ndarray:
  """Converts `[out, in]` to `[in, out]`."""
  return weight.T


def dense_after_flattening(
  weight: np.ndarray, *, size: tuple[int, int]
) -> np.ndarray:
  """Converts `[out, c * h * w]` to `[h * w * c, out]`.

  PyTorch flattens the channels first, jaxseg flattens them last.

  Args:
    weight: The matrix of the dense layer.
    size: Height and width of the features that the layer reads.
  """
  out, inputs = weight.shape
  height, width = size
  weight = weight.reshape(out, inputs // (height * width), height, width)
  return weight.transpose(2, 3, 1, 0).reshape(inputs, out)


def adapt_input_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
  """Gives a first convolution another number of input channels.

  For one channel, the kernel is summed over RGB, so that a grey image gives
  the same outputs as the image repeated three times. For any other number,
  the RGB weights are repeated in turn and scaled by 3 / channels, which keeps
  the size of sums (as timm does).

  Args:
    kernel: Kernel `[h, w, in, out]`.
    channels: Wanted number of input channels.

  Returns:
    Kernel `[h, w, channels, out]`.
  """
  current = kernel.shape[2]
  if channels == 1:
    return kernel.sum(axis=2, keepdims=True)
  repeated = kernel[:, :, np.arange(channels) % current]
  return repeated * np.asarray(current / channels, kernel.dtype)
