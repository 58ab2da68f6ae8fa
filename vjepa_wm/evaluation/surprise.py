"""Surprise: how far frames are from what was foreseen of them, in latents.

Shapes: B clips, T frames, C observed ones, P tokens, D latent width, A action width, Q proprio.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.errors import SettingError
from vjepa_wm.evaluation.diagnostics import encode_frames
from vjepa_wm.evaluation.twins import TwinClips
from vjepa_wm.progress import Progress, no_progress
from vjepa_wm.world_model import WorldModel

ROWS = {
    "predictor": "predictor",
    "copy": "copy",
    "random_copy": "copy, random encoder",
}
# How the errors of a frame's tokens (..., P) become its surprise.
TOKENS: dict[str, Callable[[Tensor], Tensor]] = {
    "largest": lambda errors: errors.amax(-1),
    "mean": lambda errors: errors.mean(-1),
}
PEAK_GAP = 2  # frames on either side of a peak that count as the same one
_ROWS_AT_ONCE = 64

Curves = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""Row -> key of `TOKENS` -> surprise of each frame (..., T), NaN where nothing was foreseen."""


class Looks(NamedTuple):
    """How far a predictor looks.

    Attributes:
        context_len: Observed frames it sees, at most.
        ahead: Frames it looks ahead; those between are imagined, not observed.
    """

    context_len: int
    ahead: int


def looks_of(world_model: WorldModel, *, context_len: int | None, ahead: int) -> Looks:
    """Check how far a predictor is to look.

    Args:
        world_model: Whose predictor.
        context_len: Observed frames; None is as many as it was trained on. Frames looked ahead
            count as well, so that there may be room for fewer.
        ahead: Frames ahead.

    Raises:
        SettingError: It was trained on fewer frames.
    """
    longest = world_model.predictor.max_frames
    if not 1 <= ahead <= longest:
        raise SettingError(f"frames ahead: wanted 1 to {longest}, got {ahead}")
    if context_len is not None and not 1 <= context_len <= longest:
        raise SettingError(f"context_len: wanted 1 to {longest} or null, got {context_len}")
    room = longest + 1 - ahead
    return Looks(room if context_len is None else min(context_len, room), ahead)


@torch.no_grad()
def foreseen_errors(
    world_model: WorldModel,
    latents: Tensor,
    actions: Tensor,
    proprio: Tensor,
    looks: Looks,
    *,
    progress: Progress = no_progress,
) -> Tensor:
    """L1 error of what the predictor foresees of each token, from the frames and actions before.

    Args:
        world_model: Foresees.
        latents: Of the frames (B, T, P, D).
        actions: Between them (B, T - 1, A).
        proprio: At them (B, T, Q), used where the predictor takes it.
        looks: How far it looks.
        progress: Makes the progress bar.

    Returns:
        (B, T, P); NaN in the first frames, which are seen but not foreseen.
    """
    device = next(world_model.parameters()).device
    errors = torch.full(latents.shape[:3], torch.nan)
    frames = range(looks.ahead, latents.shape[1])
    with progress(total=len(latents) * len(frames), desc="foresee", unit="frames") as bar:
        for rows in torch.arange(len(latents)).split(_ROWS_AT_ONCE):
            seen, taken = latents[rows].to(device), actions[rows].to(device)
            sensed = proprio[rows].to(device) if world_model.takes_proprio else None
            for frame in frames:
                now = frame - looks.ahead
                past = slice(max(0, now + 1 - looks.context_len), now + 1)
                imagination = world_model.observe(
                    seen[:, past],
                    taken[:, past.start : now],
                    None if sensed is None else sensed[:, past],
                )
                foreseen = imagination.rollout(taken[:, None, now:frame])[:, 0, -1]
                errors[rows, frame] = (foreseen.float() - seen[:, frame]).abs().mean(-1).cpu()
                bar.update(len(rows))
    return errors


def copy_errors(latents: Tensor, *, ahead: int) -> Tensor:
    """L1 error of each token (B, T, P) if the frame so many before is taken for what comes."""
    errors = torch.full(latents.shape[:3], torch.nan)
    errors[:, ahead:] = (latents[:, ahead:] - latents[:, :-ahead]).abs().mean(-1)
    return errors


def curves_of(errors: Mapping[str, Tensor]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Turn errors of tokens (..., T, P) of each row into curves (..., T)."""
    return {
        row: {name: reduce(found).double().numpy() for name, reduce in TOKENS.items()}
        for row, found in errors.items()
    }


def peaks(curve: NDArray[np.float64], count: int) -> list[int]:
    """Return the most surprising frames of a curve (T,), no two of them the same peak."""
    left = np.where(np.isnan(curve), -np.inf, curve)
    found: list[int] = []
    while len(found) < count and left.max() > -np.inf:
        frame = int(left.argmax())
        found.append(frame)
        left[max(0, frame - PEAK_GAP) : frame + PEAK_GAP + 1] = -np.inf
    return found


@dataclass(frozen=True)
class TwinSurprise:
    """How surprising the frames of twins are.

    Attributes:
        clips: The twins.
        looks: How far the predictor looked.
        curves: Of each of `ROWS`, (2, B, T), the possible twins first.
    """

    clips: TwinClips
    looks: Looks
    curves: Curves

    def scores(self, row: str, tokens: str) -> NDArray[np.float64]:
        """Score of every clip (2, B): its most surprising frame from the event on."""
        return self.curves[row][tokens][:, :, self.clips.window].max(axis=-1)


def twin_surprise(
    world_model: WorldModel,
    random_encoder: FrozenEncoder,
    clips: TwinClips,
    *,
    context_len: int | None,
    ahead: int,
    progress: Progress = no_progress,
) -> TwinSurprise:
    """Measure how surprising twins are.

    Where a plate hides the object before the event, what comes after the plate is foreseen from
    before it: while nothing is seen of the object, it is imagined.

    Args:
        world_model: Encodes and foresees.
        random_encoder: Its encoder with random weights, for the floor.
        clips: The twins.
        context_len: Observed frames the predictor sees; None is as many as it was trained on.
        ahead: Frames it looks ahead where nothing is hidden.
        progress: Makes the progress bars.

    Raises:
        SettingError: The predictor was not trained on that many frames, or there are too few.
    """
    looks = looks_of(
        world_model, context_len=context_len, ahead=clips.covered + 1 if clips.covered else ahead
    )
    if clips.frame < looks.ahead:
        raise SettingError(
            f"before: wanted at least {looks.ahead} for {clips.event}, got {clips.frame}: its "
            f"frame is foreseen from {looks.ahead} frames before"
        )
    latents = _encode_twins(world_model.encoder, clips, "encode", progress)
    random = _encode_twins(random_encoder, clips, "encode, random weights", progress)
    actions, proprio = torch.from_numpy(clips.actions), torch.from_numpy(clips.proprio)
    foreseen = [  # apart, in batches of the same shape: equal twins are to be equally surprising
        foreseen_errors(world_model, twin, actions, sensed, looks, progress=progress)
        for twin, sensed in zip(latents, proprio, strict=True)
    ]
    errors = {
        "predictor": torch.stack(foreseen),
        "copy": torch.stack([copy_errors(twin, ahead=looks.ahead) for twin in latents]),
        "random_copy": torch.stack([copy_errors(twin, ahead=looks.ahead) for twin in random]),
    }
    return TwinSurprise(clips, looks, curves_of(errors))


def _encode_twins(
    encoder: FrozenEncoder, clips: TwinClips, desc: str, progress: Progress
) -> Tensor:
    """Encode twins (2, B, T, P, D); what both share is encoded once.

    The rest is encoded in batches of the same shape, so that equal frames have equal latents.
    """
    before = encode_frames(encoder, clips.pixels[0, :, : clips.frame], desc=desc, progress=progress)
    rest = [
        encode_frames(encoder, twin[:, clips.frame :], desc=desc, progress=progress)
        for twin in clips.pixels
    ]
    return torch.stack([torch.cat([before, after], dim=1) for after in rest])
