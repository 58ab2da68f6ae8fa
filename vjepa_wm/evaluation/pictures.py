"""What a world model imagines, drawn beside what then really happened.

A decoder draws latents; it is for looking, and what it cannot draw of true latents says nothing of
the predictor. So imagined pictures are read beside those decoded of what the encoder saw.

Shapes: B windows, T frames, C observed ones, P tokens, D latent width, S side of a picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vjepa_wm.decoder import Decoder, picture_errors, seen
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.evaluation.charts import below, beside, picture
from vjepa_wm.evaluation.diagnostics import Windows
from vjepa_wm.evaluation.findings import Finding

SHOWN = 4  # windows in the picture
PANEL = 128  # side of one of its panels, pixels
AT_ONCE = 16  # windows decoded at a time
MAX_MEAN_SHARE = 0.5  # of the mean picture's error, what decoding true latents may err by
MAX_COPY_SHARE = 0.8  # of standing still's error, what the longest imagined rollout may err by


@dataclass(frozen=True)
class Looks:
    """Windows as pictures, uint8 (B, T, S, S, 3) each.

    Attributes:
        true: What really happened, as the encoder sees it.
        decoded: Drawn of the encoder's latents.
        imagined: The same for the observed frames, then drawn of imagined latents.
        context_len: Observed frames C of each window.
    """

    true: NDArray[np.uint8]
    decoded: NDArray[np.uint8]
    imagined: NDArray[np.uint8]
    context_len: int

    def still(self) -> Image.Image:
        """Draw three rows per window over time."""
        rows = [
            beside([self._panel(name, window, t) for t in range(self.true.shape[1])])
            for window in range(len(self.true))
            for name in ("true", "decoded", "imagined")
        ]
        return below(rows)

    def frames(self) -> list[Image.Image]:
        """Draw a picture per time step: per window what is true, decoded and imagined."""
        return [
            below(
                [
                    beside(
                        [self._panel(name, window, t) for name in ("true", "decoded", "imagined")]
                    )
                    for window in range(len(self.true))
                ]
            )
            for t in range(self.true.shape[1])
        ]

    def _panel(self, name: str, window: int, t: int) -> Image.Image:
        step = t - self.context_len + 1  # imagined steps after the last observed frame
        caption = f"{name} +{step}" if step > 0 else f"{name}, observed"
        return picture(getattr(self, name)[window, t], caption, size=PANEL)


@dataclass(frozen=True)
class PictureFigure:
    """How wrong decoded pictures are after each imagined step.

    Errors are L1 on pixels as shares of the brightest, each pixel counting by how rare it truly is
    (`Decoder.rarity`).

    Attributes:
        decoded: Of what the encoder saw.
        imagined: Of imagined latents, under the actions that were taken.
        copy: Of the last observed frame's latents.
        mean_picture: Of the mean picture of the decoder's training frames.
    """

    title: ClassVar[str] = "pictures: what is decoded beside what really happened (rare pixels, L1)"
    advice: ClassVar[str] = (
        "decoded near the mean picture means that the decoder draws too little to judge by: train "
        "it longer, or the encoder does not keep what moves (see probe); imagined near copy while "
        "decoded is well below it means that the predictor does not move things: see actions"
    )
    decoded: list[float]
    imagined: list[float]
    copy: list[float]
    mean_picture: list[float]

    def findings(self) -> list[Finding]:
        """The decoder against its floor, and the longest rollout against standing still."""
        drawn = sum(self.decoded) / max(sum(self.mean_picture), 1e-9)
        moved = self.imagined[-1] / max(self.copy[-1], 1e-9)
        last = {name: getattr(self, name)[-1] for name in ("imagined", "copy", "decoded")}
        means = {
            "decoded": float(np.mean(self.decoded)),
            "mean picture": float(np.mean(self.mean_picture)),
        }
        return [
            Finding("decoded / mean picture", drawn, is_bad=drawn > MAX_MEAN_SHARE, beside=means),
            Finding(
                f"imagined / copy, step {len(self.copy)}",
                moved,
                is_bad=moved > MAX_COPY_SHARE,
                beside=last,
            ),
        ]


def look(
    decoder: Decoder, encoder: FrozenEncoder, windows: Windows, imagined: Tensor, rows: slice
) -> Looks:
    """Draw some windows.

    Args:
        decoder: Draws latents.
        encoder: Cuts the true frames as it sees them.
        windows: What happened.
        imagined: What was imagined of it (B, T - C, P, D).
        rows: Which windows.
    """
    latents, observed = windows.latents[rows], windows.context_len
    decoded = _decode(decoder, latents)
    return Looks(
        true=seen(encoder, torch.from_numpy(windows.pixels[rows]), decoder.image_size).numpy(),
        decoded=decoded,
        imagined=np.concatenate([decoded[:, :observed], _decode(decoder, imagined[rows])], axis=1),
        context_len=observed,
    )


def picture_figure(
    decoder: Decoder, encoder: FrozenEncoder, windows: Windows, imagined: Tensor
) -> PictureFigure:
    """Measure how wrong decoded and imagined pictures are.

    Args:
        decoder: Draws latents.
        encoder: Cuts the true frames as it sees them.
        windows: What happened.
        imagined: What was imagined of it (B, T - C, P, D).
    """
    steps = imagined.shape[1]
    sums = {name: np.zeros(steps) for name in ("decoded", "imagined", "copy", "mean_picture")}
    for rows in _parts(len(windows)):
        looks = look(decoder, encoder, windows, imagined, rows)
        future = looks.true[:, windows.context_len :]
        mean = (decoder.mean_picture.cpu().numpy() * 255).round().astype(np.uint8)
        drawn = {
            "decoded": looks.decoded[:, windows.context_len :],
            "imagined": looks.imagined[:, windows.context_len :],
            "copy": np.broadcast_to(looks.decoded[:, windows.context_len - 1, None], future.shape),
            "mean_picture": np.broadcast_to(mean, future.shape),
        }
        for name, pictures in drawn.items():
            share = len(future) / len(windows)
            sums[name] += share * _rare_errors(decoder, pictures, future)
    return PictureFigure(**{name: row.tolist() for name, row in sums.items()})


def _rare_errors(
    decoder: Decoder, drawn: NDArray[np.uint8], true: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Error of pictures (B, T, S, S, 3) at each step (T,)."""
    device = decoder.mean_picture.device
    return np.array(
        [
            float(
                picture_errors(
                    decoder,
                    torch.from_numpy(drawn[:, t].copy()).to(device).float() / 255,
                    torch.from_numpy(true[:, t]),
                )["rare_error"]
            )
            for t in range(true.shape[1])
        ]
    )


def _decode(decoder: Decoder, latents: Tensor) -> NDArray[np.uint8]:
    return decoder.decode(latents.to(decoder.mean_picture.device)).cpu().numpy()


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + AT_ONCE) for start in range(0, count, AT_ONCE))
