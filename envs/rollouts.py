"""Simulator states as vectors, and true rollouts of many candidates at once.

Shapes: S simulator state, N candidates, L environment steps times substeps, A action width.
"""

import os

import mujoco
import mujoco.rollout
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Everything that decides the future besides the controls; mocap poses hold what varies per episode.
STATE_SPEC = int(
    mujoco.mjtState.mjSTATE_FULLPHYSICS
    | mujoco.mjtState.mjSTATE_MOCAP_POS
    | mujoco.mjtState.mjSTATE_MOCAP_QUAT
    | mujoco.mjtState.mjSTATE_WARMSTART
)
_PHYSICS_SPEC = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
_MOCAP_SPEC = int(mujoco.mjtState.mjSTATE_MOCAP_POS | mujoco.mjtState.mjSTATE_MOCAP_QUAT)
_CONTROL_SPEC = int(mujoco.mjtState.mjSTATE_CTRL) | _MOCAP_SPEC


def read_state(model: mujoco.MjModel, data: mujoco.MjData, spec: int = STATE_SPEC) -> FloatArray:
    """Copy the parts of the state named by `spec` into one vector (S,)."""
    out = np.empty(mujoco.mj_stateSize(model, spec))
    mujoco.mj_getState(model, data, out, spec)
    return out


def copy_state(model: mujoco.MjModel, source: mujoco.MjData, target: mujoco.MjData) -> None:
    """Put `target` into the state of `source`."""
    mujoco.mj_setState(model, target, read_state(model, source), STATE_SPEC)


def follow(
    model: mujoco.MjModel, data: mujoco.MjData, scratch: mujoco.MjData, controls: FloatArray
) -> FloatArray:
    """Follow the dynamics from the state of `data`, which stays as it is, in several threads.

    Args:
        model: The scene.
        data: Where every candidate starts.
        scratch: Overwritten.
        controls: Of each substep (N,L,A).

    Returns:
        Generalised positions after each substep (N,L,nq).
    """
    count = len(controls)
    mocap = read_state(model, data, _MOCAP_SPEC)
    mocap = np.broadcast_to(mocap, (*controls.shape[:2], mocap.size))
    num_workers = min(count, os.cpu_count() or 1)
    workers = [scratch, *(mujoco.MjData(model) for _ in range(num_workers - 1))]
    states, _ = mujoco.rollout.rollout(
        model,
        workers,
        np.tile(read_state(model, data, _PHYSICS_SPEC), (count, 1)),
        np.concatenate([controls, mocap], axis=-1),
        control_spec=_CONTROL_SPEC,
        initial_warmstart=np.tile(data.qacc_warmstart, (count, 1)),
    )
    return states[:, :, 1 : 1 + model.nq]  # the physics vector is time, qpos, qvel
