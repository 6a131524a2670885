"""Hypercolumns (Hariharan et al. 2015, arXiv:1411.5752).

The idea (Fig. 1, 2): a pixel's "hypercolumn" is the stack of what all chosen
layers say at its place, from edges to objects, and a classifier of that stack
is both precise and informed. A linear one need not build the stack: classify
each layer on its own grid, enlarge the scores, add them (Sec. 3.2, Fig. 4),
for a sum over channels and an interpolation commute.

- `Hypercolumn` classifies every pixel of an image.
- `BoxHypercolumn` is the paper's own: in each detected box, a heatmap of
  50x50. Where in the box a pixel lies says much about it, so there is a K x K
  grid of classifiers, and a pixel's probability is blended bilinearly from
  those of the classifiers around it (Sec. 3.1, Fig. 3).

Layers are those of the paper's "T-Net" (AlexNet): pool2, conv4 and fc7, whose
column has 256 + 384 + 4096 = 4736 numbers. Here the convolutions run once
over the image, and boxes are cut from their maps. A map is read where its
positions stand on the image: exactly in VGG and AlexNet, elsewhere as if it
were the image made smaller.
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

# For rows and for columns.
Grids = tuple[Grid, Grid]


def enlarge(
  x: Float[Array, "n h w c"], grid: Grids, size: tuple[int, int]
) -> Float[Array, "n h2 w2 c"]:
  """A map at every pixel of an image of `size`."""
  rows, columns = (
    _on_map(jnp.arange(side, dtype=jnp.float32), place)
    for side, place in zip(size, grid, strict=True)
  )
  return resample_bilinear(x, rows, columns)


def _on_map(pixels: Float[Array, "a"], place: Grid) -> Float[Array, "a"]:
  """Where pixels of the image are on a map."""
  return float(place.scale) * pixels + float(place.shift)


def places(
  backbone: nn.Module, features: Features, size: tuple[int, int]
) -> dict[str, Grids]:
  """Where the maps of an image of `size` stand on it."""
  if _is_known(backbone):
    return {key: (grid, grid) for key, grid in grids(backbone).items()}

  def smaller(length: int, side: int) -> Grid:
    scale = Fraction(length, side)
    return Grid(scale, (scale - 1) / 2)

  return {
    key: (smaller(x.shape[1], size[0]), smaller(x.shape[2], size[1]))
    for key, x in features.items()
  }


def _is_known(backbone: nn.Module) -> bool:
  return isinstance(backbone, AlexNet | VGG) and backbone.output_stride == 32


def _trunk(
  backbone: nn.Module,
  image: jax.Array,
  levels: tuple[str, ...],
  train: bool,
) -> tuple[Features, dict[str, Grids]]:
  """A backbone's maps and their places; refuses what it cannot give."""
  size = image.shape[1:3]
  if _is_known(backbone):
    check_image(backbone, size)
  features = dict(backbone(image, train=train))
  for level in levels:
    if level not in (*features, "fc7"):
      raise unknown_name("hypercolumn level", level, (*features, "fc7"))
  return features, places(backbone, features, size)


class Hypercolumn(nn.Module):
  """`[n, h, w, c]` -> `logits` `[n, h, w, num_classes]`.

  Attributes:
    backbone: gives the levels.
    levels: keys of its maps, and "fc7" for dense layers on c5.
    head_features: of fc6 and fc7.
    head_kernel_size: of fc6; 7 for VGG.
    dropout_rate: after fc6 and fc7.
    norm: of a backbone that has one; the heads have none.
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
    features, grid_of = _trunk(self.backbone, image, self.levels, train)
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
      logits += enlarge(
        score.astype(jnp.float32), grid_of[level], image.shape[1:3]
      )
    return {"logits": logits}


def _classifier(model: nn.Module, level: str, outputs: int) -> nn.Module:
  """The rows of one linear classifier that read `level`."""
  return Conv(
    outputs,
    1,
    # The whole column has one bias.
    use_bias=level == model.levels[0],
    kernel_init=nn.initializers.normal(0.01),
    param_dtype=model.param_dtype,
    name=f"score_{level}",
  )


class BoxHypercolumn(nn.Module):
  """Images and boxes -> a heatmap of each class in each box.

  Called with boxes `[n, m, 4]`: m in each of the n images, as top, left,
  bottom and right edge in pixels; (0, 0, h, w) is the whole image. Returns,
  both `[n, m, heatmap_size, heatmap_size, num_classes]`:

  - `heatmaps`: probabilities, each class against the rest, blended;
  - `logits`: of each pixel's own cell alone, which is what is trained, by a
    logistic loss (Sec. 3.1: training ignores the interpolation).

  Attributes:
    grid_size: K; 1 is one classifier for the whole box.
    heatmap_size: side of the heatmaps.
    head_kernel_size: of fc6, which reads as many positions a box.
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
    features, grid_of = _trunk(self.backbone, image, self.levels, train)
    if "fc7" in self.levels:
      features["fc7"] = self._fc7(features["c5"], grid_of["c5"], boxes, train)
    cells = self.grid_size
    scores = 0.0
    for level in self.levels:
      score = _classifier(self, level, cells**2 * self.num_classes)(
        features[level]
      ).astype(jnp.float32)
      if level == "fc7":  # One vector a box, the same for all its pixels.
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
    """The dense layers on each box, `[n * m, 1, 1, head_features]`."""
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
  """The middles of `side * side` equal parts of each box."""

  def one(x, box):
    rows, columns = (
      _on_map(middles(box[i], box[i + 2], side), grid[i]) for i in (0, 1)
    )
    return resample_bilinear(x, rows, columns)

  return jax.vmap(jax.vmap(one, (None, 0)))(x, boxes)


def _own_cell(cells: int, side: int) -> np.ndarray:
  """`[side, cells]`: 1 where a pixel lies in a cell."""
  own = (np.arange(side) * 2 + 1) * cells // (2 * side)
  return np.eye(cells)[own]


def _mix(
  scores: Float[Array, "n m s s g g k"], weights: np.ndarray
) -> Float[Array, "n m s s k"]:
  """Adds each pixel's values of all cells, weighted by row and column."""
  weight = jnp.asarray(weights, scores.dtype)
  return jnp.einsum(
    "nmijabk,ia,jb->nmijk", scores, weight, weight,
    precision=jax.lax.Precision.HIGHEST,
  )  # fmt: skip


# The paper's "T-Net"; a config's own fields override it.
BACKBONE = {"name": "caffenet"}
