"""What objects look like: shapes put together from primitives, named colours, painted textures."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

TEXTURE_SIDE = 32  # pixels
# Hue in degrees of what people call by these names, at high saturation.
HUES = {
    "red": 0,
    "orange": 27,
    "yellow": 54,
    "green": 120,
    "cyan": 180,
    "blue": 222,
    "purple": 274,
    "pink": 322,
}
_HUE_JITTER = 6  # degrees


@dataclass(frozen=True)
class Part:
    """A primitive of a shape.

    Attributes:
        kind: MuJoCo's name of the primitive.
        size: As MuJoCo wants it of that kind, metres.
        pos: Its centre in the shape, metres.
    """

    kind: str
    size: tuple[float, ...]
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Shape:
    """A shape whose longest axis, where it has one, is z.

    Attributes:
        name: What it is called.
        parts: What it is made of.
        radius: Of a ball around all of it, metres.
        flat_height: Height of its middle when it lies on a flat side without rolling off; None
            when it has none.
        rolling_radius: Height of its middle when it rolls about its z axis; None when it cannot.
    """

    name: str
    parts: tuple[Part, ...]
    radius: float
    flat_height: float | None = None
    rolling_radius: float | None = None


def _sphere(size: float, rng: np.random.Generator) -> Shape:
    return Shape("sphere", (Part("sphere", (size,)),), size, rolling_radius=size)


def _box(size: float, rng: np.random.Generator) -> Shape:
    half = size * rng.uniform(0.6, 0.9, 3)
    return Shape("box", (Part("box", tuple(half)),), float(np.linalg.norm(half)), half[2])


def _cylinder(size: float, rng: np.random.Generator) -> Shape:
    radius, half = size * rng.uniform(0.55, 0.75), size * rng.uniform(0.6, 0.95)
    part = Part("cylinder", (radius, half))
    return Shape("cylinder", (part,), float(np.hypot(radius, half)), half, radius)


def _capsule(size: float, rng: np.random.Generator) -> Shape:
    radius, half = size * rng.uniform(0.4, 0.5), size * rng.uniform(0.65, 0.9)
    part = Part("capsule", (radius, half))
    return Shape("capsule", (part,), radius + half, rolling_radius=radius)


def _cross(size: float, rng: np.random.Generator) -> Shape:
    thin = size * rng.uniform(0.28, 0.38)
    parts = (Part("box", (size, thin, thin)), Part("box", (thin, size, thin)))
    return Shape("cross", parts, float(np.linalg.norm((size, thin, thin))), thin)


def _dumbbell(size: float, rng: np.random.Generator) -> Shape:
    ball, half = size * rng.uniform(0.42, 0.52), size * rng.uniform(0.65, 0.8)
    parts = (
        Part("sphere", (ball,), (0.0, 0.0, -half)),
        Part("sphere", (ball,), (0.0, 0.0, half)),
        Part("capsule", (0.45 * ball, half)),
    )
    return Shape("dumbbell", parts, ball + half, rolling_radius=ball)


_SHAPE_MAKERS: dict[str, Callable[[float, np.random.Generator], Shape]] = {
    "sphere": _sphere,
    "box": _box,
    "cylinder": _cylinder,
    "capsule": _capsule,
    "cross": _cross,
    "dumbbell": _dumbbell,
}


def make_shape(name: str, size: float, rng: np.random.Generator) -> Shape:
    """Make a shape about `size` metres in radius, with proportions of its own."""
    return _SHAPE_MAKERS[name](size, rng)


def vivid(colour: str, rng: np.random.Generator) -> FloatArray:
    """Draw a full colour of a name, RGB in 0..1 (3,)."""
    hue = (HUES[colour] + rng.uniform(-_HUE_JITTER, _HUE_JITTER)) % 360 / 360
    return np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.8, 1.0), rng.uniform(0.8, 1.0)))


def muted(rng: np.random.Generator, *, darkest: float = 0.3) -> FloatArray:
    """Draw a greyish colour for what is not the main object, RGB in 0..1 (3,)."""
    colour = (rng.uniform(), rng.uniform(0.0, 0.32), rng.uniform(darkest, 0.95))
    return np.array(colorsys.hsv_to_rgb(*colour))


def contrast(colour: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw a much lighter or much darker kind of a colour (3,)."""
    if rng.uniform() < 0.5:
        return colour * rng.uniform(0.15, 0.4)
    return colour + (1 - colour) * rng.uniform(0.7, 0.95)


def _plain(rng: np.random.Generator) -> FloatArray:
    return np.zeros((TEXTURE_SIDE, TEXTURE_SIDE))


def _checker(rng: np.random.Generator) -> FloatArray:
    cell = TEXTURE_SIDE // int(rng.choice([2, 4]))
    row, column = np.indices((TEXTURE_SIDE, TEXTURE_SIDE)) // cell
    return ((row + column) % 2).astype(float)


def _stripes(rng: np.random.Generator) -> FloatArray:
    width = TEXTURE_SIDE // int(rng.choice([4, 6]))
    along = np.indices((TEXTURE_SIDE, TEXTURE_SIDE))[int(rng.integers(2))]
    return (along // width % 2).astype(float)


def _dots(rng: np.random.Generator) -> FloatArray:
    cell = TEXTURE_SIDE // int(rng.choice([2, 3]))
    row, column = np.indices((TEXTURE_SIDE, TEXTURE_SIDE)) % cell - (cell - 1) / 2
    return (np.hypot(row, column) < 0.32 * cell).astype(float)


def _gradient(rng: np.random.Generator) -> FloatArray:
    ramp = np.linspace(0, 1, TEXTURE_SIDE)[:: 1 if rng.uniform() < 0.5 else -1]
    field = np.broadcast_to(ramp, (TEXTURE_SIDE, TEXTURE_SIDE))
    return field if rng.uniform() < 0.5 else field.T


def _noise(rng: np.random.Generator) -> FloatArray:
    coarse = int(rng.choice([4, 8]))
    cells = rng.uniform(0, 1, (coarse, coarse)) ** 1.5
    return np.kron(cells, np.ones((TEXTURE_SIDE // coarse,) * 2))


_PATTERNS: dict[str, Callable[[np.random.Generator], FloatArray]] = {
    "plain": _plain,
    "checker": _checker,
    "stripes": _stripes,
    "dots": _dots,
    "gradient": _gradient,
    "noise": _noise,
}

SHAPES = tuple(_SHAPE_MAKERS)
TEXTURES = tuple(_PATTERNS)
COLOURS = tuple(HUES)


def paint(texture: str, colour: FloatArray, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint a texture (side,side,3): a pattern of a colour and a contrast to it."""
    share = _PATTERNS[texture](rng)[..., None]
    return np.round(255 * ((1 - share) * colour + share * contrast(colour, rng))).astype(np.uint8)
