"""Whether an encoder has collapsed: gives nearly the same latents whatever it sees."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vjepa_wm.errors import UnknownNameError

# Under which a figure of latents means collapse. Latents are layer-normed,
# so 1 is the most that frames can differ; random weights give 0.08 on our simulations.
FLOORS = {"frame_std": 0.02, "effective_rank": 2.0}
MEANING = {
    "frame_std": "standard deviation over frames",
    "effective_rank": "effective rank of its tokens",
}


def collapse_faults(
    figures: Mapping[str, float], floors: Mapping[str, float] = FLOORS
) -> list[str]:
    """List the figures that lie under their floor, as text; an empty list is an encoder that sees.

    Args:
        figures: What was measured on held-out frames; a figure that is missing has no fault.
        floors: Lowest value of each figure.

    Raises:
        UnknownNameError: There is a floor for something else.
    """
    for name in floors:
        if name not in MEANING:
            raise UnknownNameError("figure of collapse", name, MEANING)
    return [
        f"{MEANING[name]} {figures[name]:.3g} (wanted at least {floor:g})"
        for name, floor in floors.items()
        if name in figures and not figures[name] >= floor  # neither is NaN
    ]


def latent_figures(latents: Tensor) -> dict[str, float]:
    """Return both figures of latents (F, P, D)."""
    return {"frame_std": frame_std(latents), "effective_rank": effective_rank(latents)}


def frame_std(latents: Tensor) -> float:
    """Standard deviation over frames, averaged over places and channels; latents (F, P, D)."""
    return float(latents.std(dim=0).mean())


def effective_rank(latents: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values (Roy and Vetterli, 2007).

    Taken over the tokens of all frames with each place's mean removed, from latents (F, P, D); lies
    between 1 and D.
    """
    x = (latents - latents.mean(dim=0)).flatten(0, 1).double()  # exact also under autocast
    values = torch.linalg.svdvals(x.T @ x).sqrt()
    shares = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum()))
