"""Hypercolumns (Hariharan et al. 2015, arXiv:1411.5752).

The idea (Fig. 1, 2): the "hypercolumn" of a pixel is the stack of the outputs
of several layers at its position, from edges to objects. A classifier of
hypercolumns is both precise and semantic. A linear classifier does not need
the stack: summation over channels and interpolation commute, so each layer is
classified on its own grid, and the upsampled scores are added (Sec. 3.2,
Fig. 4).

- `Hypercolumn` classifies every pixel of an image.
- `BoxHypercolumn` is the paper's network: it predicts a heatmap of 50x50 in
  each detected box. The position in the box is informative, so there is a
  K x K grid of classifiers, and the probability of a pixel is interpolated
  bilinearly between the classifiers around it (Sec. 3.1, Fig. 3).

Layers are those of the paper's "T-Net" (AlexNet): pool2, conv4 and fc7, a
hypercolumn of 256 + 384 + 4096 = 4736 numbers. Here the convolutions run once
for the image, and boxes are cut from their maps. Positions of maps on the
image are exact for VGG and AlexNet. Maps of other backbones are treated as
resized copies of the image.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from jaxseg.backbones.alexnet import AlexNet
from jaxseg.backbones.geometry import Grid, Window, check_image, grids
from jaxseg.backbones.vgg import VGG
from jaxseg.errors import unknown_name
from jaxseg.layers.boxes import middles, require_inside
from jaxseg.layers.conv import Conv
from jaxseg.layers.dense_conv import DenseConvHead
from jaxseg.layers.norm import BatchNorm
from jaxseg.layers.resize import bilinear_matrix, resample_bilinear
from jaxseg.types import Features, Images, Outputs

LEVELS = ("pool2", "conv4", "fc7")

# Grids of rows and columns.
Grids = tuple[Grid, Grid]


class Hypercolumn(nn.Module):
  """Maps `[n, h, w, c]` to `logits` `[n, h, w, num_classes]`.

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone that returns the levels.
    levels: Keys of the backbone's maps, and "fc7" for dense layers on c5.
    head_features: Features of fc6 and fc7.
    head_kernel_size: Kernel size of fc6; 7 for VGG.
    dropout_rate: Dropout rate after fc6 and fc7.
    norm: Normalisation that `models.create` passes on to the backbone; the
      head has none.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  levels: tuple[str, ...] = LEVELS
  head_features: int = 4096
  head_kernel_size: int = 6
  dropout_rate: float = 0.5
  norm: Callable[..., Any] = BatchNorm
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Images, *, train: bool) -> Outputs:
    features, grid_of = _maps_and_grids(
      self.backbone, image, self.levels, train
    )
    if "fc7" in self.levels:
      padding = self.head_kernel_size // 2
      features["fc7"] = DenseConvHead(
        self.head_features,
        self.head_kernel_size,
        padding=padding,
        dropout_rate=self.dropout_rate,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name="head",
      )(features["c5"], train=train)
      window = Window(self.head_kernel_size, padding=padding)
      rows, columns = (grid.through(window) for grid in grid_of["c5"])
      grid_of["fc7"] = (rows, columns)
    logits = 0.0
    for level in self.levels:
      score = _classifier(self, level, self.num_classes)(features[level])
      logits += upsample_to_image(
        score.astype(jnp.float32), grid_of[level], image.shape[1:3]
      )
    return {"logits": logits}


class BoxHypercolumn(nn.Module):
  """Maps images and boxes to a heatmap for each class and box.

  Boxes `[n, m, 4]` are m per image, as top, left, bottom and right edge in
  pixels; (0, 0, h, w) is the whole image. Both outputs are
  `[n, m, heatmap_size, heatmap_size, num_classes]`:

  - `heatmaps`: Interpolated probabilities, each class against the rest.
  - `logits`: Logits of the classifier of each pixel's own grid cell. These
    are trained, with a logistic loss; training ignores the interpolation
    (Sec. 3.1).

  Attributes:
    num_classes: Number of classes.
    backbone: Backbone that returns the levels.
    levels: Keys of the backbone's maps, and "fc7" for dense layers on c5.
    grid_size: K, the side of the grid of classifiers; 1 is a single classifier.
    heatmap_size: Side of the heatmaps.
    head_features: Features of fc6 and fc7.
    head_kernel_size: Kernel size of fc6, and side of the map cut for it from
      each box.
    dropout_rate: Dropout rate after fc6 and fc7.
    dtype: Computation dtype; None promotes inputs and parameters.
    param_dtype: Dtype of the parameters.
  """

  num_classes: int
  backbone: nn.Module
  levels: tuple[str, ...] = LEVELS
  grid_size: int = 10
  heatmap_size: int = 50
  head_features: int = 4096
  head_kernel_size: int = 6
  dropout_rate: float = 0.5
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, image: Images, boxes: Float[Array, "n m 4"], *, train: bool
  ) -> Outputs:
    require_inside(boxes, image.shape[1:3])
    features, grid_of = _maps_and_grids(
      self.backbone, image, self.levels, train
    )
    if "fc7" in self.levels:
      features["fc7"] = self._fc7(features["c5"], grid_of["c5"], boxes, train)
    cells = self.grid_size
    scores = 0.0
    for level in self.levels:
      score = _classifier(self, level, cells**2 * self.num_classes)(
        features[level]
      ).astype(jnp.float32)
      if level == "fc7":  # One vector per box, for all of its pixels.
        scores += score.reshape(*boxes.shape[:2], 1, 1, -1)
      else:
        scores += cut(score, grid_of[level], boxes, self.heatmap_size)
    scores = scores.reshape(*scores.shape[:-1], cells, cells, self.num_classes)
    return {
      "logits": _mix(scores, _own_cell(cells, self.heatmap_size)),
      "heatmaps": _mix(
        nn.sigmoid(scores),
        bilinear_matrix(cells, self.heatmap_size, align_corners=False),
      ),
    }

  def _fc7(
    self, c5: jax.Array, grid: Grids, boxes: jax.Array, train: bool
  ) -> jax.Array:
    """Applies the dense layers to each box: `[n * m, 1, 1, head_features]`."""
    x = cut(c5, grid, boxes, self.head_kernel_size)
    return DenseConvHead(
      self.head_features,
      self.head_kernel_size,
      dropout_rate=self.dropout_rate,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="head",
    )(x.reshape(-1, *x.shape[2:]), train=train)


def cut(
  x: Float[Array, "n h w c"],
  grid: Grids,
  boxes: Float[Array, "n m 4"],
  side: int,
) -> Float[Array, "n m s s c"]:
  """Samples a map at the centres of `side * side` equal parts of each box.

  Args:
    x: Feature maps.
    grid: Grids of the map's rows and columns.
    boxes: Boxes in pixels of the image.
    side: Number of samples along each side of a box.
  """

  def one(x, box):
    rows, columns = (
      _on_map(middles(box[i], box[i + 2], side), grid[i]) for i in (0, 1)
    )
    return resample_bilinear(x, rows, columns)

  return jax.vmap(jax.vmap(one, (None, 0)))(x, boxes)


def upsample_to_image(
  x: Float[Array, "n h w c"], grid: Grids, size: tuple[int, int]
) -> Float[Array, "n h2 w2 c"]:
  """Samples a map at every pixel of an image of `size`."""
  rows, columns = (
    _on_map(jnp.arange(side, dtype=jnp.float32), place)
    for side, place in zip(size, grid, strict=True)
  )
  return resample_bilinear(x, rows, columns)


def _on_map(pixels: Float[Array, "a"], place: Grid) -> Float[Array, "a"]:
  """Converts coordinates of image pixels to coordinates of a map."""
  return float(place.scale) * pixels + float(place.shift)


def _maps_and_grids(
  backbone: nn.Module,
  image: jax.Array,
  levels: tuple[str, ...],
  train: bool,
) -> tuple[Features, dict[str, Grids]]:
  """Returns a backbone's maps and their grids.

  Raises:
    UserError: A level does not exist, or the image is too small.
  """
  size = image.shape[1:3]
  if _has_known_grids(backbone):
    check_image(backbone, size)
  features = dict(backbone(image, train=train))
  for level in levels:
    if level not in (*features, "fc7"):
      raise unknown_name("level of model.levels", level, (*features, "fc7"))
  return features, grids_of_maps(backbone, features, size)


def grids_of_maps(
  backbone: nn.Module, features: Features, size: tuple[int, int]
) -> dict[str, Grids]:
  """Returns the grids of a backbone's maps for an image of `size`.

  Maps of an unknown backbone are treated as resized copies of the image.
  """
  if _has_known_grids(backbone):
    return {key: (grid, grid) for key, grid in grids(backbone).items()}

  def resized(length: int, side: int) -> Grid:
    scale = Fraction(length, side)
    return Grid(scale, (scale - 1) / 2)

  return {
    key: (resized(x.shape[1], size[0]), resized(x.shape[2], size[1]))
    for key, x in features.items()
  }


def _has_known_grids(backbone: nn.Module) -> bool:
  """Returns whether `geometry` knows the positions of the backbone's maps."""
  return isinstance(backbone, AlexNet | VGG) and backbone.output_stride == 32


def _classifier(model: nn.Module, level: str, outputs: int) -> nn.Module:
  """Returns the part of the linear classifier that reads `level`."""
  return Conv(
    outputs,
    1,
    # The classifier of the whole hypercolumn has one bias.
    use_bias=level == model.levels[0],
    kernel_init=nn.initializers.normal(0.01),
    param_dtype=model.param_dtype,
    name=f"score_{level}",
  )


def _own_cell(cells: int, side: int) -> np.ndarray:
  """Returns `[side, cells]`: 1 where a pixel lies in a cell, 0 elsewhere."""
  own = (np.arange(side) * 2 + 1) * cells // (2 * side)
  return np.eye(cells)[own]


def _mix(
  scores: Float[Array, "n m s s g g k"], weights: np.ndarray
) -> Float[Array, "n m s s k"]:
  """Sums the values of all grid cells, weighted by row and by column."""
  weight = jnp.asarray(weights, scores.dtype)
  return jnp.einsum(
    "nmijabk,ia,jb->nmijk", scores, weight, weight,
    precision=jax.lax.Precision.HIGHEST,
  )  # fmt: skip


# The paper's "T-Net".
BACKBONE = {"name": "caffenet"}
