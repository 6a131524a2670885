"""Array layouts: PyTorch's axes to ours, and other numbers of input channels.

| layer                  | PyTorch             | here                  |
|------------------------|---------------------|-----------------------|
| convolution            | out, in/groups, h, w | h, w, in/groups, out  |
| transposed convolution | in, out/groups, h, w | h, w, in, out/groups  |
| dense                  | out, in             | in, out               |
| dense after flattening | out, c h w          | h w c, out            |

Depthwise and grouped convolutions are convolutions: groups stay contiguous in
both. Our transposed convolution does not flip its kernel, nor does PyTorch.
"""

import numpy as np


def convolution(weight: np.ndarray) -> np.ndarray:
  """`[out, in / groups, h, w]` -> `[h, w, in / groups, out]`."""
  return weight.transpose(2, 3, 1, 0)


def transposed_convolution(weight: np.ndarray) -> np.ndarray:
  """`[in, out / groups, h, w]` -> `[h, w, in, out / groups]`."""
  return weight.transpose(2, 3, 0, 1)


def dense(weight: np.ndarray, flattened: tuple[int, int] | None = None):
  """`[out, in]` -> `[in, out]`.

  Args:
    weight: the matrix.
    flattened: height and width of the map that the layer reads flattened;
      PyTorch flattens channels first, we flatten them last.
  """
  if flattened is None:
    return weight.T
  out, size = weight.shape
  height, width = flattened
  weight = weight.reshape(out, size // (height * width), height, width)
  return weight.transpose(2, 3, 1, 0).reshape(size, out)


def adapt_input(kernel: np.ndarray, channels: int) -> np.ndarray:
  """Gives a first convolution another number of input channels.

  One channel: the sum over RGB, so that a grey image answers as it did when
  it was repeated three times. Otherwise the RGB weights are repeated in turn
  and scaled by 3 / channels, so that sums keep their size (what timm does).
  """
  have = kernel.shape[2]
  if channels == 1:
    return kernel.sum(axis=2, keepdims=True)
  repeated = kernel[:, :, np.arange(channels) % have]
  return repeated * np.asarray(have / channels, kernel.dtype)
