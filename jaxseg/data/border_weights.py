"""U-Net's weight map: pixels between close cells count more (Sec. 3, Eq. 2).

  w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2))

with d1, d2 the distances to the nearest and second nearest cell and w_c a
balance of the classes, by which each counts alike: pixels / (classes * pixels
of the class). The paper has w0 = 10, sigma = 5 pixels (Sec. 3) and adds the
second term to the background between the cells.

This runs on the host, in NumPy: cells are told apart by their ids, of which
the label of a class knows nothing.
"""

from jaxtyping import Float, Integer
import numpy as np


def squared_distance(mask: np.ndarray, reach: int) -> Float[np.ndarray, "h w"]:
  """Squared Euclidean distance of each pixel to the nearest one of `mask`.

  Exact, along columns and then along rows (Felzenszwalb & Huttenlocher 2012);
  infinite where no pixel of the mask lies within `reach` rows and columns.

  Args:
    mask: bool `[h, w]`.
    reach: pixels.
  """
  along = np.where(mask, 0.0, np.inf)
  for i in range(1, len(along)):
    along[i] = np.minimum(along[i], along[i - 1] + 1)
  for i in range(len(along) - 2, -1, -1):
    along[i] = np.minimum(along[i], along[i + 1] + 1)
  along[along > reach] = np.inf
  squared, width = along**2, mask.shape[1]
  best = squared.copy()
  for k in range(1, min(reach, width - 1) + 1):
    best[:, k:] = np.minimum(best[:, k:], squared[:, :-k] + k * k)
    best[:, :-k] = np.minimum(best[:, :-k], squared[:, k:] + k * k)
  return best


def two_distances(
  cells: Integer[np.ndarray, "h w"], reach: int
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
  """Distances to the nearest and to the second nearest cell.

  Args:
    cells: id of each pixel's cell, 0 outside of all.
    reach: distances are infinite beyond as many rows or columns.
  """
  nearest = np.full(cells.shape, np.inf)
  second = nearest.copy()
  for cell in np.unique(cells[cells > 0]):
    rows, columns = np.nonzero(cells == cell)
    # What lies farther from the cell's box is out of reach anyway.
    part = tuple(
      slice(max(at.min() - reach, 0), at.max() + reach + 1)
      for at in (rows, columns)
    )
    d = np.sqrt(squared_distance(cells[part] == cell, reach))
    second[part] = np.minimum(second[part], np.maximum(nearest[part], d))
    nearest[part] = np.minimum(nearest[part], d)
  return nearest, second


def border_weights(
  cells: Integer[np.ndarray, "h w"],
  *,
  w0: float = 10.0,
  sigma: float = 5.0,
) -> Float[np.ndarray, "h w"]:
  """The weight of each pixel in a loss of two classes, cell and background.

  Distances count up to 6 sigma, where the second term is below 2e-8 w0.

  Args:
    cells: id of each pixel's cell, 0 for the background.
    w0: weight of the border between cells.
    sigma: its width, in pixels.
  """
  inside = cells > 0
  weights = np.zeros(cells.shape)
  classes = [where for where in (inside, ~inside) if where.any()]
  for where in classes:
    weights[where] = cells.size / (len(classes) * where.sum())
  d1, d2 = two_distances(cells, int(np.ceil(6 * sigma)))
  border = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
  return weights + np.where(inside, 0.0, border)
