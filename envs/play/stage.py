"""A scene as it is put together: MJCF built piece by piece, and all that MJCF does not say.

x points right in the picture, y away from the camera, z up; lengths in metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, SubElement, tostring

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.play.looks import (
    COLOURS,
    SHAPES,
    TEXTURE_SIDE,
    TEXTURES,
    FloatArray,
    Shape,
    make_shape,
    muted,
    paint,
    vivid,
)
from envs.play.views import Camera

MAX_OBJECTS = 4
SCENERY_GROUP = 0
PROPS_GROUP = 1
FIRST_OBJECT_GROUP = 2  # object k is alone in group 2 + k
STIFFNESS = 1e4  # of contacts, 1/s2: the time step follows their bounce, and 5 m/s sink in 5 cm
MAIN = "main"  # name of the main object's texture and material
LEVEL = (1.0, 0.0, 0.0, 0.0)

Numbers = Sequence[float]


@dataclass(frozen=True)
class Scene:
    """A scene ready to be compiled.

    Attributes:
        kind: What happens in it.
        xml: MJCF.
        images: Texture name -> its pixels (side,side,3), put in after compiling.
        starts: Joint name -> its first qpos and qvel.
        radii: Of each object, for telling whether it is seen.
        look: Shape, texture and colour of the main object.
        camera: Who watches.
        release_s: When the main object begins to feel gravity.
        waypoints: Joint targets of the actuators (W,A), passed one by one; A may be 0.
        waypoint_s: Seconds from one to the next.
        gravity: m/s2, downwards.
    """

    kind: str
    xml: str
    images: dict[str, NDArray[np.uint8]]
    starts: dict[str, tuple[FloatArray, FloatArray]]
    radii: tuple[float, ...]
    look: dict[str, str]
    camera: Camera
    release_s: float
    waypoints: FloatArray
    waypoint_s: float
    gravity: float


@dataclass
class Stage:
    """Builds one random scene; everything random comes from `rng`.

    Attributes:
        rng: Decides everything.
        step_s: Physical time step.
        has_shadows: Whether a lamp casts shadows, at several times the cost of a picture.
        camera: To be set by the scene.
        release_s: As in `Scene`.
        waypoints: As in `Scene`.
        waypoint_s: As in `Scene`.
    """

    rng: np.random.Generator
    step_s: float
    has_shadows: bool
    camera: Camera | None = None
    release_s: float = 0.0
    waypoints: FloatArray = field(default_factory=lambda: np.zeros((2, 0)))
    waypoint_s: float = 1.0

    def __post_init__(self) -> None:
        """Lay out floor, sky, light and, often, a wall at the back."""
        self.root = Element("mujoco", model="play")
        self.gravity = float(self.rng.uniform(3.5, 9.81))
        self.images: dict[str, NDArray[np.uint8]] = {}
        self.starts: dict[str, tuple[FloatArray, FloatArray]] = {}
        self.radii: list[float] = []
        self.look = {
            "shape": "",
            "texture": str(self.rng.choice(TEXTURES)),
            "colour": str(self.rng.choice(COLOURS)),
        }
        SubElement(self.root, "compiler", angle="radian")
        SubElement(
            self.root,
            "option",
            timestep=f"{self.step_s:.9f}",
            gravity=f"0 0 {-self.gravity:.6f}",
            integrator="implicitfast",
            jacobian="dense",
        )
        SubElement(self.root, "size", memory="4M")
        SubElement(self.root, "statistic", extent="1", center="0 0 0.5")
        self.asset = SubElement(self.root, "asset")
        self.world = SubElement(self.root, "worldbody")
        self.actuators = SubElement(self.root, "actuator")
        self._light()
        self._surroundings()
        painted = paint(self.look["texture"], vivid(self.look["colour"], self.rng), self.rng)
        self.material(MAIN, painted, kind="cube")

    def draw_shape(self, *, rolls: bool = False, lies_flat: bool = False) -> Shape:
        """Draw the shape of the next object; the main one is drawn first and named in `look`.

        Args:
            rolls: Only shapes that roll.
            lies_flat: Only shapes that have a flat side.
        """
        size = self.rng.uniform(0.19, 0.27) if not self.radii else self.rng.uniform(0.13, 0.24)
        made = [make_shape(name, size, self.rng) for name in SHAPES]
        fitting = [
            shape
            for shape in made
            if (not rolls or shape.rolling_radius) and (not lies_flat or shape.flat_height)
        ]
        return fitting[int(self.rng.integers(len(fitting)))]

    def material(
        self,
        name: str,
        image: NDArray[np.uint8],
        *,
        kind: str,
        repeat: tuple[float, float] = (1, 1),
    ) -> None:
        """Make a material of a texture; `kind` is MuJoCo's, cube for objects and 2d for planes."""
        side = str(TEXTURE_SIDE)
        # Its pixels are put in after compiling; MJCF only reserves their place.
        SubElement(
            self.asset,
            "texture",
            name=name,
            type=kind,
            builtin="flat",
            rgb1=".5 .5 .5",
            width=side,
            height=side,
        )
        SubElement(
            self.asset,
            "material",
            name=name,
            texture=name,
            texrepeat=_text(repeat),
            specular=_text((self.rng.uniform(0, 0.4),)),
            shininess=_text((self.rng.uniform(0.2, 0.8),)),
        )
        self.images[name] = image

    def block(
        self,
        pos: Numbers,
        half: Numbers,
        *,
        quat: Numbers = LEVEL,
        is_solid: bool = True,
    ) -> None:
        """Put up a muted box that stays where it is; things go through it unless it is solid."""
        SubElement(
            self.world,
            "geom",
            type="box",
            pos=_text(pos),
            quat=_text(quat),
            size=_text(half),
            rgba=_text((*muted(self.rng), 1)),
            contype=str(int(is_solid)),
            conaffinity=str(int(is_solid)),
            group=str(PROPS_GROUP),
        )

    def object(
        self,
        shape: Shape,
        *,
        pos: Numbers,
        quat: Numbers = LEVEL,
        velocity: Numbers = (0.0, 0.0, 0.0),
        spin: Numbers = (0.0, 0.0, 0.0),
        slide: float = 0.6,
        rolling: float = 0.001,
        damping_ratio: float = 1.0,
    ) -> None:
        """Let go of an object; the first one is the main one.

        Args:
            shape: What it is.
            pos: Where.
            quat: How it is turned (4,).
            velocity: m/s (3,).
            spin: rad/s about the axes of the world (3,).
            slide: Friction against sliding.
            rolling: Friction against rolling, metres.
            damping_ratio: Of its contacts; small ones bounce.
        """
        index = len(self.radii)
        quat = np.asarray(quat, float)
        body = SubElement(
            self.world,
            "body",
            name=f"object{index}",
            pos=_text(pos),
            quat=_text(quat),
            gravcomp="1" if index == 0 and self.release_s > 0 else "0",
        )
        SubElement(body, "freejoint", name=f"object{index}")
        own = np.empty(3)
        back = quat * (1, -1, -1, -1)
        mujoco.mju_rotVecQuat(own, np.asarray(spin, float), back)  # qvel turns about its own axes
        start = np.concatenate([np.asarray(pos, float), quat])
        self.starts[f"object{index}"] = (start, np.concatenate([np.asarray(velocity, float), own]))
        friction = (slide, 0.005, rolling)
        self.parts(body, shape, friction=friction, damping_ratio=damping_ratio)

    def parts(
        self,
        body: Element,
        shape: Shape,
        *,
        friction: Numbers = (0.6, 0.005, 0.001),
        damping_ratio: float = 1.0,
        density: float | None = None,
    ) -> None:
        """Make a body the next object: give it the geoms of a shape, the first the main look."""
        index = len(self.radii)
        is_main = index == 0
        paint_of = {"material": MAIN} if is_main else {"rgba": _text((*muted(self.rng), 1))}
        density = self.rng.uniform(200, 700) if density is None else density
        for part in shape.parts:
            SubElement(
                body,
                "geom",
                type=part.kind,
                size=_text(part.size),
                pos=_text(part.pos),
                density=_text((density,)),
                friction=_text(friction),
                solref=_text((-STIFFNESS, -2 * damping_ratio * STIFFNESS**0.5)),
                condim="6",
                # Its own friction and bounce count against floor and props, not the greater of both
                priority="1",
                group=str(FIRST_OBJECT_GROUP + index),
                **paint_of,
            )
        self.radii.append(shape.radius)
        if is_main:
            self.look["shape"] = shape.name

    def watch(
        self,
        centre: Numbers,
        *,
        width: float,
        elevation: tuple[float, float],
        azimuth: float = 0.4,
        is_moving: bool = False,
    ) -> None:
        """Set up the camera.

        Args:
            centre: What it looks at.
            width: Metres that the picture shows there.
            elevation: Lowest and highest, degrees.
            azimuth: Farthest to either side, rad.
            is_moving: Whether it moves during the clip.
        """
        rng = self.rng
        self.camera = Camera(
            centre=tuple(float(value) for value in centre),
            width=float(width),
            azimuth=float(rng.uniform(-azimuth, azimuth)),
            elevation=float(np.radians(rng.uniform(*elevation))),
            fovy=float(np.radians(rng.uniform(30, 55))),
            turning=float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.12)) if is_moving else 0.0,
            approach=float(rng.uniform(-0.06, 0.06)) if is_moving else 0.0,
        )

    def finish(self, kind: str) -> Scene:
        """Return the scene."""
        assert self.camera is not None and 1 <= len(self.radii) <= MAX_OBJECTS
        visual = SubElement(self.root, "visual")
        light = self.rng.uniform(0.25, 0.4, 1).repeat(3)
        SubElement(visual, "headlight", ambient=_text(light), diffuse=".2 .2 .2", specular="0 0 0")
        SubElement(visual, "map", znear="0.05", zfar="40", shadowclip="2", shadowscale="0.8")
        SubElement(visual, "global", offwidth="1024", offheight="1024")
        shadow_size = "512" if self.has_shadows else "0"
        quality = {"shadowsize": shadow_size, "offsamples": "0", "numslices": "20"}
        SubElement(visual, "quality", numstacks="10", **quality)
        SubElement(self.world, "camera", name="view", fovy=_text((np.degrees(self.camera.fovy),)))
        return Scene(
            kind=kind,
            xml=tostring(self.root, encoding="unicode"),
            images=self.images,
            starts=self.starts,
            radii=tuple(self.radii),
            look=self.look,
            camera=self.camera,
            release_s=self.release_s,
            waypoints=self.waypoints,
            waypoint_s=self.waypoint_s,
            gravity=self.gravity,
        )

    def _light(self) -> None:
        """Put up the sun, or a lamp: its shadows have no speckles, the sun's have."""
        rng = self.rng
        towards = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.3, 1.0), -1])
        kind = {"directional": "true", "castshadow": "false"}
        if self.has_shadows:
            kind = {"cutoff": "60", "exponent": "1", "castshadow": "true"}
        SubElement(
            self.world,
            "light",
            pos=_text((0, 0, 0.5) - 4 * towards / np.linalg.norm(towards)),
            dir=_text(towards),
            diffuse=_text(rng.uniform(0.45, 0.7) * rng.uniform(0.85, 1.0, 3)),
            specular=".2 .2 .2",
            **kind,
        )

    def _surroundings(self) -> None:
        rng = self.rng
        sky = (muted(rng, darkest=0.5), muted(rng, darkest=0.5))
        SubElement(
            self.asset,
            "texture",
            name="sky",
            type="skybox",
            builtin="gradient",
            rgb1=_text(sky[0]),
            rgb2=_text(sky[1]),
            width="32",
            height="32",
        )
        tiles = rng.uniform(8, 24)
        self.material("floor", self._soft_picture(), kind="2d", repeat=(tiles, tiles))
        geom = {"contype": "1", "conaffinity": "1", "group": str(SCENERY_GROUP)}
        floor = {"size": "8 8 0.1", "material": "floor", "friction": "0.6 0.005 0.0001"}
        SubElement(self.world, "geom", type="plane", **floor, **geom)
        if rng.uniform() < 0.5:
            tiles = rng.uniform(1, 2)
            self.material("wall", self._soft_picture(), kind="2d", repeat=(4 * tiles, tiles))
            back = _text((0, rng.uniform(1.6, 3.0), 2))
            # A plane, whose normal looks at the camera
            turned = {"size": "8 2 0.1", "euler": f"{np.pi / 2} 0 0", "material": "wall"}
            SubElement(self.world, "geom", type="plane", pos=back, **turned, **geom)

    def _soft_picture(self) -> NDArray[np.uint8]:
        """Paint a pattern in muted colours, often weakly: the main object is to stand out."""
        colour = muted(self.rng)
        picture = paint(str(self.rng.choice(TEXTURES)), colour, self.rng)
        strength = self.rng.uniform(0.15, 0.7)
        return np.round(strength * picture + (1 - strength) * 255 * colour).astype(np.uint8)


def _text(numbers: Numbers | FloatArray) -> str:
    """Write numbers as MJCF wants them, alike on every machine."""
    return " ".join(f"{float(number):.9g}" for number in numbers)
