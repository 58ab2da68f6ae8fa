"""What latents know of the simulator's state: linear probes on true and on imagined frames.

Shapes: F frames, B windows, T imagined steps, P tokens, D latent width, S sim_state, V values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.charts import beside, curves
from vjepa_wm.evaluation.findings import Finding

STILL = 1e-6  # metres, radians or per second: what deviates by less stands still
MIN_MOVE_M = 0.02  # a passive object that moves by less in a window is not pushed in it
GOOD_R2 = 0.9
R2_MARGIN = 0.02  # by which a random encoder may be better
GOOD_SHARE = 0.5  # of copying's error, what a rollout may err by
GOOD_EXCESS = 2.0  # times the error on true frames, what it may err by where copying is good
_PENALTIES = tuple(10.0**power for power in range(-5, 2))  # in units of a frame's mean square

Scores = dict[str, float]


@dataclass(frozen=True)
class Target:
    """A quantity of the simulator's state that latents ought to know.

    Attributes:
        name: Ends in its unit, m or rad.
        columns: Where it is in the sim_state; several columns in one tuple are averaged.
        is_angle: Whether it is an angle, which is probed as cosine and sine.
    """

    name: str
    columns: tuple[int | tuple[int, ...], ...]
    is_angle: bool = False

    def state(self, sim_state: NDArray) -> NDArray:
        """Cut it out of states (..., S): (..., columns), in its unit."""
        parts = [sim_state[..., np.atleast_1d(column)].mean(axis=-1) for column in self.columns]
        return np.stack(parts, axis=-1)

    def values(self, sim_state: NDArray) -> NDArray:
        """Return what a probe is to predict of states (..., S): (..., V)."""
        state = self.state(sim_state)
        if not self.is_angle:
            return state
        return np.concatenate([np.cos(state), np.sin(state)], axis=-1)

    def errors(self, predicted: NDArray, sim_state: NDArray) -> NDArray:
        """Return how far predictions (..., V) are off (...), in the target's unit."""
        state = self.state(sim_state)
        if not self.is_angle:
            return np.linalg.norm(predicted - state, axis=-1)
        cosine, sine = np.split(predicted, 2, axis=-1)
        off = np.arctan2(sine, cosine) - state
        return np.linalg.norm((off + np.pi) % (2 * np.pi) - np.pi, axis=-1)


@dataclass(frozen=True)
class Targets:
    """The targets of an environment.

    Attributes:
        all: Every target.
        passive: The one that moves only when it is pushed; None where nothing is pushed.
    """

    all: tuple[Target, ...]
    passive: Target | None = None

    def values(self, sim_state: NDArray) -> NDArray:
        """Values of all targets beside each other (..., V)."""
        return np.concatenate([target.values(sim_state) for target in self.all], axis=-1)

    def split(self, predicted: NDArray) -> dict[str, NDArray]:
        """Cut predictions of all targets (..., V) into those of each."""
        widths = [len(target.columns) * (1 + target.is_angle) for target in self.all]
        parts = np.split(predicted, np.cumsum(widths)[:-1], axis=-1)
        return {target.name: part for target, part in zip(self.all, parts, strict=True)}


_BLOCK = Target("block_position_m", (3, 4))
_PUSH = Targets(
    (Target("pusher_position_m", (1, 2)), _BLOCK, Target("block_angle_rad", (5,), is_angle=True)),
    passive=_BLOCK,
)
# A sim_state begins with the time, then qpos; see the docstrings of the environments.
TARGETS: dict[str, Targets] = {
    "vjepa_wm/Push-v0": _PUSH,
    "vjepa_wm/PushT-v0": _PUSH,
    "vjepa_wm/Reacher-v0": Targets(
        (
            Target("shoulder_angle_rad", (1,), is_angle=True),
            Target("elbow_angle_rad", (2,), is_angle=True),
        )
    ),
    "vjepa_wm/TwoRooms-v0": Targets(
        (Target("robot_position_m", (1, 2)), Target("door_y_m", ((8, 11),)))
    ),
}


def targets_of(env_id: str) -> Targets | None:
    """Return the targets of an environment, ``module:id`` or ``id``; None where none are known."""
    name = env_id.rpartition(":")[2]
    return TARGETS.get(name)


@dataclass(frozen=True)
class Probe:
    """A linear map from the latents of a frame to values.

    Attributes:
        mean: Of the flattened latents (P * D,).
        weight: (P * D, V).
        bias: (V,).
    """

    mean: Tensor
    weight: Tensor
    bias: Tensor

    def predict(self, latents: Tensor) -> NDArray:
        """Read the values (..., V) off latents (..., P, D)."""
        flat = latents.flatten(-2).double() - self.mean
        return (flat @ self.weight + self.bias).numpy()


def fit_probe(latents: Tensor, values: NDArray, *, min_frames: int = 10) -> Probe:
    """Fit a ridge regression whose penalty has the least leave-one-out error.

    Args:
        latents: (F, P, D).
        values: (F, V), in any units: all weigh alike in the choice of the penalty.
        min_frames: Fewer are refused.

    Raises:
        DataError: There are fewer frames than that.
    """
    if len(latents) < min_frames:
        raise DataError(f"a probe needs at least {min_frames} frames, got {len(latents)}")
    x = latents.flatten(1).double()
    mean = x.mean(0)
    x = x - mean
    y = torch.from_numpy(values).double()
    bias, scale = y.mean(0), y.std(0).clamp_min(1e-12)
    y = (y - bias) / scale
    eigenvalues, vectors = _left_singular(x)  # (R,) squared, (F, R)
    turned = vectors.T @ y
    # What of y no direction of x can have, whatever the penalty
    beside = y - vectors @ turned

    def left_out_error(penalty: float) -> float:
        kept = eigenvalues / (eigenvalues + penalty)
        residual = beside + vectors @ ((1 - kept).unsqueeze(1) * turned)
        leverage = (vectors.square() * kept).sum(1, keepdim=True) + 1 / len(y)
        return float((residual / (1 - leverage).clamp_min(1e-9)).square().mean())

    unit = max(float(eigenvalues.sum()) / len(y), 1e-12)
    penalty = unit * min(_PENALTIES, key=lambda share: left_out_error(share * unit))
    weight = x.T @ (vectors @ (turned / (eigenvalues + penalty).unsqueeze(1)))
    return Probe(mean, weight * scale, bias)


def _left_singular(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared singular values (R,) and left vectors (F, R) of x (F, D); R is the less."""
    frames, channels = x.shape
    if frames <= channels:
        eigenvalues, vectors = torch.linalg.eigh(x @ x.T)
        return eigenvalues.clamp_min(0), vectors
    eigenvalues, right = torch.linalg.eigh(x.T @ x)
    eigenvalues = eigenvalues.clamp_min(0)
    # A direction in which nothing varies has no left vector: it is left out by a zero
    is_there = eigenvalues > eigenvalues[-1] * channels * torch.finfo(x.dtype).eps
    lengths = eigenvalues.sqrt().where(is_there, torch.inf)
    return eigenvalues, x @ right / lengths


def score(targets: Targets, predicted: NDArray, sim_state: NDArray) -> tuple[Scores, Scores]:
    """Compare predictions with the truth.

    Args:
        targets: Of the environment.
        predicted: (F, V).
        sim_state: (F, S).

    Returns:
        R2 of each target, 0 of one that stands still, and its root mean squared error in its unit
        (of a position, the distance in the plane).
    """
    r2, rmse = {}, {}
    parts = targets.split(predicted)
    for target in targets.all:
        true, found = target.values(sim_state), parts[target.name]
        spread = ((true - true.mean(axis=0)) ** 2).sum()
        unexplained = ((true - found) ** 2).sum()
        is_still = spread <= len(true) * STILL**2
        r2[target.name] = 0.0 if is_still else float(1 - unexplained / spread)
        errors = target.errors(found, sim_state)
        rmse[target.name] = float(np.sqrt((errors**2).mean()))
    return r2, rmse


@dataclass(frozen=True)
class ProbeFigure:
    """How well the state can be read off the latents of single frames.

    Attributes:
        frames: Held-out frames it was measured on.
        r2: Of each target.
        rmse: Of each target, in its unit.
        random_r2: The same of an encoder with random weights.
        random_rmse: The same of an encoder with random weights.
    """

    title: ClassVar[str] = "probe: what single frames know"
    advice: ClassVar[str] = (
        "the encoder does not see it: pretrain longer or on more pictures, pool less "
        "(encoder.pool=1), take more pixels or smaller patches, or another encoder"
    )
    frames: int
    r2: Scores
    rmse: Scores
    random_r2: Scores
    random_rmse: Scores

    def findings(self) -> list[Finding]:
        """One line per target."""
        return [
            Finding(
                f"R2 {name}",
                value,
                is_bad=value < max(GOOD_R2, self.random_r2[name] - R2_MARGIN),
                beside={
                    "rmse": self.rmse[name],
                    "random encoder R2": self.random_r2[name],
                    "rmse of it": self.random_rmse[name],
                },
            )
            for name, value in self.r2.items()
        ]


@dataclass(frozen=True)
class RolloutFigure:
    """How well the state can be read off imagined frames, per imagined step.

    Attributes:
        windows: How many held-out windows count.
        pushed_only: Whether windows in which the passive object rests were left out.
        rmse: Target -> row -> one number per step, in the target's unit. Rows: `imagined`, `copy`
            (the last observed frame) and `encoded` (the true frames, the probe's own error).
        r2: The same in R2.
    """

    title: ClassVar[str] = "rollout: what imagined frames know"
    advice: ClassVar[str] = (
        "the predictor loses it: if `encoded` is bad as well see probe, else train the predictor "
        "longer or on more data with such moments (contacts), or raise rollout_weight"
    )
    windows: int
    pushed_only: bool
    rmse: dict[str, dict[str, list[float]]]
    r2: dict[str, dict[str, list[float]]]

    def draw(self) -> Image.Image:
        """Draw the errors of each target over steps."""
        return beside([curves(rows, f"rmse {name}") for name, rows in self.rmse.items()])

    def findings(self) -> list[Finding]:
        """One line per target, for the last step."""
        found = []
        for name, rows in self.rmse.items():
            last = {row: values[-1] for row, values in rows.items()}
            found.append(
                Finding(
                    f"rmse {name}, step {len(rows['imagined'])}",
                    last["imagined"],
                    is_bad=last["imagined"]
                    > max(GOOD_SHARE * last["copy"], GOOD_EXCESS * last["encoded"]),
                    beside={
                        "copy": last["copy"],
                        "encoded": last["encoded"],
                        "R2": self.r2[name]["imagined"][-1],
                        "copy R2": self.r2[name]["copy"][-1],
                    },
                )
            )
        return found


def rollout_figure(
    probe: Probe, targets: Targets, rows: Mapping[str, Tensor], sim_state: NDArray
) -> RolloutFigure:
    """Read the state off imagined frames.

    Args:
        probe: Fitted on true frames.
        targets: Of the environment.
        rows: Name -> latents (B, T, P, D) of the steps after the last observed frame.
        sim_state: Of the last observed frame and the true ones after it (B, T + 1, S).

    Raises:
        DataError: The passive object is pushed in fewer than two windows.
    """
    keep = np.ones(len(sim_state), bool)
    if targets.passive is not None:
        place = targets.passive.state(sim_state)
        moved = np.linalg.norm(place - place[:, :1], axis=-1).max(axis=1)
        keep = moved > MIN_MOVE_M
    if keep.sum() < 2:
        raise DataError(
            f"{targets.passive.name} moves by more than {MIN_MOVE_M} m in {keep.sum()} of "
            f"{len(keep)} windows: raise windows="
        )
    future, chosen = sim_state[keep][:, 1:], torch.from_numpy(keep)
    rmse: dict[str, dict[str, list[float]]] = {target.name: {} for target in targets.all}
    r2: dict[str, dict[str, list[float]]] = {target.name: {} for target in targets.all}
    for row, latents in rows.items():
        predicted = probe.predict(latents[chosen])
        steps = [score(targets, predicted[:, t], future[:, t]) for t in range(future.shape[1])]
        for name in rmse:
            r2[name][row] = [step[0][name] for step in steps]
            rmse[name][row] = [step[1][name] for step in steps]
    return RolloutFigure(int(keep.sum()), targets.passive is not None, rmse, r2)
