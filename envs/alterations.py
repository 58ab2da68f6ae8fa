"""What can be altered of one body of a compiled scene, for scenes that break a law of physics."""

from dataclasses import dataclass

import mujoco
import numpy as np

COLLISION_GROUP = 3  # of geoms that collide and are never drawn
STUCK_DAMPING = 1e4  # N s/m and N m s/rad; no actuator of the scenes moves that visibly

Shape = tuple[str, tuple[float, ...]]


@dataclass(frozen=True)
class Alteration:
    """A change to one body; hashable, as compiled scenes and renderers are kept by it.

    Attributes:
        body: Its name.
        is_hidden: It is not drawn.
        is_ghost: It touches nothing.
        is_stuck: Its joints hardly move, whatever the force.
        colours: RGBA of its drawn geoms in their order; () leaves them.
        shapes: MuJoCo's type and sizes, metres, of its drawn geoms in their order; () leaves them.
    """

    body: str
    is_hidden: bool = False
    is_ghost: bool = False
    is_stuck: bool = False
    colours: tuple[tuple[float, ...], ...] = ()
    shapes: tuple[Shape, ...] = ()

    def apply(self, model: mujoco.MjModel) -> None:
        """Alter a model that nobody else uses."""
        body = model.body(self.body).id
        geoms = np.flatnonzero(model.geom_bodyid == body)
        drawn = [geom for geom in geoms if model.geom_group[geom] != COLLISION_GROUP]
        if self.is_ghost:
            model.geom_contype[geoms] = 0
            model.geom_conaffinity[geoms] = 0
        if self.is_stuck:
            first, count = model.body_dofadr[body], model.body_dofnum[body]
            model.dof_damping[first : first + count] = STUCK_DAMPING
        if self.colours:
            for geom, colour in zip(drawn, self.colours, strict=True):
                model.geom_rgba[geom] = colour
        if self.shapes:
            for geom, (kind, sizes) in zip(drawn, self.shapes, strict=True):
                model.geom_type[geom] = int(getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}"))
                model.geom_size[geom] = (*sizes, 0.0, 0.0)[:3]
        if self.is_hidden:
            model.geom_group[drawn] = COLLISION_GROUP


def alterations_of(
    body: str, *, colours: tuple[tuple[float, ...], ...], shapes: tuple[Shape, ...]
) -> dict[str, Alteration]:
    """Name every way a body can be altered, as `envs.impossible.Event` calls them."""
    return {
        "hidden": Alteration(body, is_hidden=True),
        "ghost": Alteration(body, is_ghost=True),
        "stuck": Alteration(body, is_stuck=True),
        "colours": Alteration(body, colours=colours),
        "shapes": Alteration(body, shapes=shapes),
    }
