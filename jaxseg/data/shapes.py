"""`shapes`: a data set that jaxseg draws, so that nothing is downloaded.

A network needs form, texture and surroundings to label these scenes:

- The ground is dull and figures are vivid, but the colours of all figures come
  from one distribution. The colour of a pixel does not tell its figure.
- Figures can fill most of the image. In a window of 15 pixels, the inside of a
  large disc looks like the inside of a large square.
- The same disc is one class on the ground and another class on a square.

| class      | description                                                  |
|------------|--------------------------------------------------------------|
| background | mottled ground with clutter: specks, strokes, outlines       |
| disc       | a plain disc                                                 |
| square     | a plain square                                               |
| ring       | a plain ring with a transparent hole                         |
| bar        | a long thin bar in front of all other figures                |
| striped    | a disc or square with stripes                                |
| checked    | a disc or square with checks                                 |
| core       | a plain disc that lies on a plain square                     |

Figures occlude each other and cast shadows. Light, blur and noise differ from
scene to scene. A border of one pixel around each figure has the ignore label.
An example is a pure function of its split and index; nothing is stored.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

CLASS_NAMES = (
  "background",
  "disc",
  "square",
  "ring",
  "bar",
  "striped",
  "checked",
  "core",
)
PALETTE = (
  (38, 38, 46),
  (230, 85, 80),
  (70, 130, 220),
  (245, 190, 65),
  (235, 235, 235),
  (90, 185, 110),
  (165, 105, 205),
  (250, 140, 50),
)
SPLIT_SIZES = {"train": 2000, "val": 200}
SIZE = (64, 64)
IGNORE_LABEL = 255

_BACKGROUND, _DISC, _SQUARE, _RING, _BAR, _STRIPED, _CHECKED, _CORE = range(8)
_SPLIT_KEYS = {"train": 0, "val": 1}
_Y, _X = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)

# Relative frequency and minimum radius of each class. Stripes, checks and
# cores are visible only in larger figures. The maximum radius is 27, eight
# times the smallest minimum.
_CHOICES = {
  _DISC: (1.2, 3.3),
  _SQUARE: (1.2, 4.5),
  _RING: (1.4, 8.0),
  _STRIPED: (1.3, 8.0),
  _CHECKED: (1.2, 8.0),
  _CORE: (1.5, 13.0),
}
_LARGEST = 27.0
_ODDS = np.array([odds for odds, _ in _CHOICES.values()])
_ODDS = np.cumsum(_ODDS / _ODDS.sum())

# Signed distance to an outline, negative inside, in coordinates of the figure.
Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Figure:
  """A figure of a scene.

  Attributes:
    label: Class id.
    x: Column of the centre.
    y: Row of the centre.
    radius: Half the extent of the figure.
    angle: Rotation in radians.
    distance: Signed distance to the outline.
  """

  label: int
  x: float
  y: float
  radius: float
  angle: float
  distance: Distance

  def window(self, margin: float) -> tuple[slice, slice]:
    """Returns the part of the image that the figure can touch."""
    reach = self.radius + margin
    return tuple(
      slice(int(max(at - reach, 0)), int(max(at + reach + 2, 0)))
      for at in (self.y, self.x)
    )

  def local(self, window, shift=(0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """Returns coordinates along the figure's axes, relative to its centre.

    Args:
      window: Part of the image.
      shift: Displacement (x, y) of the figure.
    """
    u = _X[window] - np.float32(self.x + shift[0])
    v = _Y[window] - np.float32(self.y + shift[1])
    cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
    return cos * u + sin * v, cos * v - sin * u


def _disc(radius: float) -> Distance:
  return lambda u, v: np.sqrt(u * u + v * v) - np.float32(radius)


def _ring(radius: float, width: float) -> Distance:
  middle, half = np.float32(radius - width / 2), np.float32(width / 2)
  return lambda u, v: np.abs(np.sqrt(u * u + v * v) - middle) - half


def _box(length: float, width: float) -> Distance:
  a, b = np.float32(length / 2), np.float32(width / 2)
  return lambda u, v: np.maximum(np.abs(u) - a, np.abs(v) - b)


def _square(radius: float) -> Distance:
  return _box(radius * 2**0.5, radius * 2**0.5)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
  """Draws from the uniform distribution on [low, high)."""
  return low + (high - low) * rng.random()


def _size(rng: np.random.Generator, low: float, high: float) -> float:
  """Draws a size; large ones are more frequent than if it were log-uniform."""
  return low * (high / low) ** rng.random() ** 0.6


def _other(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
  """Draws a colour that differs from `colour` in every channel.

  Each channel is moved cyclically by a quarter to three quarters of its range,
  so the result is uniform if `colour` is.
  """
  turn = rng.random(3, dtype=np.float32) / 2 + np.float32(0.25)
  return (colour + turn) % 1


def _place(rng: np.random.Generator) -> tuple[float, float]:
  """Draws a centre that is not close to the edge of the image."""
  x, y = _between(rng, 0.12, 0.88), _between(rng, 0.12, 0.88)
  return SIZE[1] * x, SIZE[0] * y


def _dull(colour: np.ndarray) -> np.ndarray:
  """Reduces the saturation and keeps the brightness."""
  grey = colour.mean(axis=-1, keepdims=True)
  return grey + (colour - grey) * np.float32(0.25)


def _vivid(colour: np.ndarray) -> np.ndarray:
  """Increases the saturation and keeps the hue."""
  low, high = colour.min(), colour.max()
  spread = (colour - low) / max(high - low, np.float32(1e-3))
  dark, bright = np.float32(0.3) * low, 0.7 + np.float32(0.3) * high
  return (dark + spread * (bright - dark)).astype(np.float32)


def _figure(rng: np.random.Generator, label: int, *place) -> list[_Figure]:
  """Returns the figures to draw for a class.

  Args:
    rng: Random generator.
    label: Class id.
    *place: x, y, radius and angle.
  """
  x, y, radius, angle = place
  if label == _RING:
    width = max(5.0, radius * _between(rng, 0.3, 0.5))
    return [_Figure(label, *place, _ring(radius, width))]
  if label == _CORE:
    inner = radius * _between(rng, 0.35, 0.5)
    return [
      _Figure(_SQUARE, *place, _square(radius)),
      _Figure(_CORE, x, y, inner, angle, _disc(inner)),
    ]
  square = label == _SQUARE or (label != _DISC and rng.random() < 0.5)
  outline = _square(radius) if square else _disc(radius)
  return [_Figure(label, *place, outline)]


def _scene(rng: np.random.Generator) -> list[_Figure]:
  """Draws the figures of a scene, from back to front."""
  figures: list[_Figure] = []
  height, width = SIZE
  for i in range(3 + int(4 * rng.random())):
    choice = int(np.searchsorted(_ODDS, rng.random()))
    label, (_, least) = list(_CHOICES.items())[choice]
    # The first two figures are large, because later there is no space left.
    radius = _size(rng, max(least, 12.0) if i < 2 else least, _LARGEST)
    for _ in range(8):
      x, y = _place(rng)
      if all(
        (x - f.x) ** 2 + (y - f.y) ** 2 > (0.95 * (radius + f.radius)) ** 2
        for f in figures
      ):
        angle = np.pi * rng.random()
        figures += _figure(rng, label, x, y, radius, angle)
        break
  for _ in range(int(3 * rng.random())):
    length = _size(rng, 30.0, 80.0)
    bar = _box(length, _between(rng, 6.0, 10.0))
    x, y = width * rng.random(), height * rng.random()
    figures.append(_Figure(_BAR, x, y, length / 2, np.pi * rng.random(), bar))
  return figures


def _texture(rng, label: int, first, second, u, v) -> np.ndarray:
  """Returns the colours at (u, v).

  Striped and checked figures alternate between `first` and `second`; all
  others have the colour `first`.
  """
  if label not in (_STRIPED, _CHECKED):
    return first
  wave = np.float32(2 * np.pi / _between(rng, 5.0, 8.0))
  mix = np.sin(wave * u + np.float32(2 * np.pi * rng.random()))
  if label == _CHECKED:
    mix *= np.sin(wave * v + np.float32(2 * np.pi * rng.random()))
  return first + (second - first) * np.clip(0.5 + 2 * mix, 0, 1)[..., None]


def _paint(rng, image, label, figure: _Figure, behind, light) -> np.ndarray:
  """Paints a figure and its shadow into `image`, and its class into `label`.

  Args:
    rng: Random generator.
    image: Image, changed in place.
    label: Class ids, changed in place.
    figure: Figure to paint.
    behind: Colour of the ground, or of the square below a core.
    light: Displacement (x, y) of the shadow.

  Returns:
    The colour of the figure, which differs from `behind`.
  """
  window = figure.window(margin=4.0)
  part = image[window]
  shadow = figure.distance(*figure.local(window, light))
  part *= 1 - np.float32(0.25) * np.clip(0.5 - shadow / 4, 0, 1)[..., None]
  u, v = figure.local(window)
  colour = _vivid(_other(rng, behind))
  second = _vivid(_other(rng, colour))
  colours = _texture(rng, figure.label, colour, second, u, v)
  distance = figure.distance(u, v)
  part += (colours - part) * np.clip(0.5 - distance, 0, 1)[..., None]
  label[window][distance < 0.5] = IGNORE_LABEL
  label[window][distance < -0.5] = figure.label
  return colour


def _smooth(image: np.ndarray, amount: float) -> np.ndarray:
  """Blurs both axes with the kernel [amount, 1 - 2 amount, amount]."""
  for axis in (0, 1):
    sides = np.roll(image, 1, axis) + np.roll(image, -1, axis)
    image = image * np.float32(1 - 2 * amount) + sides * np.float32(amount)
  return image


def _ground(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Draws a mottled ground with clutter.

  Returns:
    The image, and the colour of the ground without grain and clutter.
  """
  height, width = SIZE
  grain = rng.random((height // 2, width // 2, 1), dtype=np.float32) - 0.5
  grain = _smooth(_smooth(grain.repeat(2, 0).repeat(2, 1), 0.25), 0.25)
  # A triangle wave of a uniform phase is uniform for every offset.
  phase = 2 * rng.random(3, dtype=np.float32)
  depth = rng.uniform(0.1, 0.5, 3).astype(np.float32)
  image = np.abs((phase + grain * depth) % 2 - 1)
  ground = np.abs(phase % 2 - 1)
  image, ground = _dull(image), _dull(ground)
  for _ in range(1 + int(4 * rng.random())):
    size = _size(rng, 3.0, 20.0)
    marks = (_disc(_between(rng, 0.5, 1.5)), _ring(size, 1.0), _box(size, 1.0))
    mark = _Figure(
      _BACKGROUND,
      width * rng.random(),
      height * rng.random(),
      size,
      np.pi * rng.random(),
      marks[int(3 * rng.random())],
    )
    window = mark.window(margin=1.0)
    cover = np.clip(0.5 - mark.distance(*mark.local(window)), 0, 1)
    image[window] += (_other(rng, ground) - image[window]) * cover[..., None]
  return image, ground


def draw(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws one example.

  Args:
    split: "train" or "val".
    index: Index of the example, 0 .. SPLIT_SIZES[split] - 1.

  Returns:
    The image, uint8 `[h, w, 3]`, and its label, uint8 `[h, w]`.
  """
  rng = np.random.Generator(np.random.PCG64([_SPLIT_KEYS[split], index]))
  image, ground = _ground(rng)
  label = np.full(SIZE, _BACKGROUND, np.uint8)
  turn = 2 * np.pi * rng.random()
  light = (2 * np.cos(turn), 2 * np.sin(turn))
  colour = ground
  for figure in _scene(rng):
    behind = colour if figure.label == _CORE else ground
    colour = _paint(rng, image, label, figure, behind, light)
  slope = [np.float32(_between(rng, -0.3, 0.3)) for _ in range(2)]
  shade = 1 + slope[0] * (_X / SIZE[1] - 0.5) + slope[1] * (_Y / SIZE[0] - 0.5)
  image = _smooth(image * shade[..., None], _between(rng, 0.0, 0.2))
  noise = rng.standard_normal(image.shape, dtype=np.float32)
  image += noise * np.float32(_between(rng, 0.01, 0.04))
  return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8), label
