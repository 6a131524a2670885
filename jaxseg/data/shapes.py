"""`shapes`: the data set that jaxseg draws itself, so that nothing need load.

The idea: a scene of overlapping figures that a network can only label by
looking at *form*, *texture* and *surroundings*. Every colour is drawn from
one distribution, whatever the class, so a pixel by itself says nothing;
figures grow to most of the picture, so the inside of a large disc looks like
the inside of a large square to whoever sees 15 pixels; and a disc that lies
on a square is another class ("core") than a disc that lies anywhere else.

| class      | what it is                                                 |
|------------|------------------------------------------------------------|
| background | what is behind, with its clutter: thin outlines and specks |
| disc       | a plain disc on the background                             |
| square     | a plain square, with or without a core                     |
| ring       | an annulus; the class behind shows through its hole        |
| bar        | a long thin bar, lying over whatever it crosses            |
| striped    | a disc or square with stripes                              |
| checked    | a disc or square with checks                               |
| core       | a plain disc that lies on a square                         |

A one-pixel border around each figure is ignored. Example (split, index) is
a pure function of these two; nothing is stored and nothing is shared.
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


@dataclasses.dataclass(frozen=True)
class _Figure:
  """A class, where it lies, and its signed distance (inside < 0)."""

  label: int
  x: float
  y: float
  radius: float
  angle: float
  distance: Callable[[np.ndarray, np.ndarray], np.ndarray]

  def local(self, dx: float = 0.0, dy: float = 0.0):
    """Coordinates along the figure's own axes, shifted by (dx, dy)."""
    u, v = _X - np.float32(self.x + dx), _Y - np.float32(self.y + dy)
    cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
    return cos * u + sin * v, cos * v - sin * u


def _disc(radius: float):
  return lambda u, v: np.hypot(u, v) - np.float32(radius)


def _square(radius: float):
  half = np.float32(radius * 0.86)
  return lambda u, v: np.maximum(np.abs(u), np.abs(v)) - half


def _ring(radius: float, width: float):
  middle, half = np.float32(radius - width / 2), np.float32(width / 2)
  return lambda u, v: np.abs(np.hypot(u, v) - middle) - half


def _bar(length: float, width: float):
  half_length, half = np.float32(length / 2), np.float32(width / 2)
  return lambda u, v: np.maximum(np.abs(u) - half_length, np.abs(v) - half)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
  return float(low * (high / low) ** rng.random())


def _colour(rng: np.random.Generator, *others: np.ndarray) -> np.ndarray:
  """A colour that can be told from `others`."""
  for _ in range(20):
    colour = rng.random(3, dtype=np.float32)
    if all(np.abs(colour - other).max() > 0.3 for other in others):
      break
  return colour


def _figures(rng: np.random.Generator) -> list[_Figure]:
  """Chooses what is in the scene, from the back to the front."""
  figures: list[_Figure] = []
  for _ in range(int(rng.integers(2, 7))):
    label = int(rng.choice([_DISC, _SQUARE, _RING, _STRIPED, _CHECKED, _CORE]))
    smallest = {_DISC: 3.0, _SQUARE: 3.5, _RING: 5.0, _CORE: 9.0}
    for _ in range(10):
      radius = _log_uniform(rng, smallest.get(label, 6.0), 26.0)
      x, y = rng.random(2) * (SIZE[1], SIZE[0])
      if all(
        np.hypot(x - f.x, y - f.y) > 0.8 * (radius + f.radius) for f in figures
      ):
        break
    else:
      continue
    angle = float(rng.random() * np.pi)
    place = (float(x), float(y), radius, angle)
    if label == _RING:
      width = max(3.5, radius * (0.25 + 0.2 * rng.random()))
      figures.append(_Figure(label, *place, _ring(radius, width)))
    elif label == _CORE:
      figures.append(_Figure(_SQUARE, *place, _square(radius)))
      inner = radius * (0.35 + 0.3 * rng.random())
      figures.append(_Figure(_CORE, *place[:2], inner, angle, _disc(inner)))
    else:
      square = label == _SQUARE or (label != _DISC and rng.random() < 0.5)
      outline = _square(radius) if square else _disc(radius)
      figures.append(_Figure(label, *place, outline))
  for _ in range(int(rng.integers(0, 3))):
    x, y = rng.random(2) * (SIZE[1], SIZE[0])
    length = _log_uniform(rng, 16.0, 64.0)
    bar = _bar(length, 3.5 + 2.0 * rng.random())
    angle = float(rng.random() * np.pi)
    figures.append(_Figure(_BAR, float(x), float(y), 3.0, angle, bar))
  return figures


def _paint(rng, image, figure: _Figure, background: np.ndarray, light):
  """Lays one figure, its texture and its shadow over `image`."""
  distance = figure.distance(*figure.local(*light))
  shadow = np.clip(0.5 - distance / 4, 0, 1)[..., None]
  image = image * (1 - np.float32(0.35) * shadow)
  u, v = figure.local()
  first = _colour(rng, background)
  second = _colour(rng, background, first)
  period = np.float32(rng.uniform(4.0, 8.0))
  phase = 2 * np.pi * rng.random(2)
  wave = 2 * np.float32(np.pi) / period
  if figure.label == _STRIPED:
    mix = np.sin(wave * u + np.float32(phase[0]))
  elif figure.label == _CHECKED:
    mix = np.sin(wave * u + np.float32(phase[0]))
    mix *= np.sin(wave * v + np.float32(phase[1]))
  else:
    mix = None
  colour = first
  if mix is not None:
    mix = np.clip(0.5 + 2 * mix, 0, 1)[..., None]
    colour = first + (second - first) * mix
  cover = np.clip(0.5 - figure.distance(u, v), 0, 1)[..., None]
  return image + (colour - image) * cover


def _clutter(rng, image, background: np.ndarray):
  """Specks and thin outlines, all of them background."""
  for _ in range(int(rng.integers(2, 7))):
    x, y = rng.random(2) * (SIZE[1], SIZE[0])
    colour = _colour(rng, background)
    kind = rng.integers(3)
    angle = float(rng.random() * np.pi)
    if kind == 0:
      distance = _disc(0.5 + rng.random())
    elif kind == 1:
      distance = _ring(_log_uniform(rng, 3.0, 20.0), 1.0)
    else:
      distance = _bar(_log_uniform(rng, 3.0, 20.0), 1.0)
    mark = _Figure(0, float(x), float(y), 0.0, angle, distance)
    cover = np.clip(0.5 - distance(*mark.local()), 0, 1)[..., None]
    image = image + (colour - image) * cover
  return image


def _blur(image: np.ndarray, amount: float) -> np.ndarray:
  """A [w, 1 - 2 w, w] blur along both axes."""
  w = np.float32(amount)
  for axis in (0, 1):
    before = np.roll(image, 1, axis)
    after = np.roll(image, -1, axis)
    image = image * (1 - 2 * w) + (before + after) * w
  return image


def draw(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws one example.

  Args:
    split: "train" or "val".
    index: 0 .. SPLIT_SIZES[split] - 1.

  Returns:
    The image, uint8 `[h, w, 3]`, and its label, uint8 `[h, w]`.
  """
  rng = np.random.Generator(np.random.PCG64([_SPLIT_KEYS[split], index]))
  background = rng.random(3, dtype=np.float32)
  ramp = rng.uniform(-0.3, 0.3, 2).astype(np.float32)
  image = np.broadcast_to(background, (*SIZE, 3))
  image = _clutter(rng, image, background)
  label = np.zeros(SIZE, np.uint8)
  turn = 2 * np.pi * rng.random()
  light = (2 * float(np.cos(turn)), 2 * float(np.sin(turn)))
  for figure in _figures(rng):
    image = _paint(rng, image, figure, background, light)
    distance = figure.distance(*figure.local())
    label[distance < -0.5] = figure.label
    label[np.abs(distance) <= 0.5] = IGNORE_LABEL
  shade = 1 + ramp[0] * (_X / SIZE[1] - 0.5) + ramp[1] * (_Y / SIZE[0] - 0.5)
  image = _blur(image * shade[..., None], 0.25 * rng.random())
  noise = rng.standard_normal((*SIZE, 3), dtype=np.float32)
  image = image + noise * np.float32(0.02 + 0.05 * rng.random())
  return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8), label
