"""Losses and validation of the action-conditioned predictor.

Shapes: B windows, T frames, P tokens, D latent width, A action width, Q proprio width.
"""

import torch
from torch import Tensor

from vjepa_wm.errors import SettingError
from vjepa_wm.predictor import ActionPredictor
from vjepa_wm.world_model import WorldModel

ACTION_RATIO_FLOOR = 1.15  # shuffled / true one-step error under which actions are ignored


class DynamicsLoss:
    """Teacher forcing plus a k-step rollout term, both L1 on latents.

    V-JEPA 2-AC (arXiv 2506.09985, section 3.1) sums the two. The rollout term here feeds the
    predictor its own outputs at every position at once: pass j sees the first frame and the
    outputs of pass j - 1, without gradient through them, and is scored where j own outputs in a
    row were used (JEPA-WMs, arXiv 2512.24497, find cutting that gradient faster and better).

    Most tokens do not change from one frame to the next. Tokens weigh
    `1 + change_weight * change / mean change`, normalised, or the few that matter drown.

    Args:
        predictor: the network.
        rollout_steps: k; 1 is teacher forcing alone.
        rollout_weight: weight of the rollout term.
        rollout_from: share of the budget after which the rollout term is added.
        change_weight: how much more changed tokens count; 0 weighs all alike.
    """

    def __init__(
        self,
        predictor: ActionPredictor,
        *,
        rollout_steps: int,
        rollout_weight: float,
        rollout_from: float,
        change_weight: float,
    ) -> None:
        if not 1 <= rollout_steps <= predictor.max_frames:
            raise SettingError(
                f"rollout_steps must be between 1 and max_frames {predictor.max_frames}, "
                f"got {rollout_steps}"
            )
        self.predictor = predictor
        self.rollout_steps = rollout_steps
        self.rollout_weight = rollout_weight
        self.rollout_from = rollout_from
        self.change_weight = change_weight

    def __call__(
        self, latents: Tensor, actions: Tensor, proprio: Tensor | None = None, *, share: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss on windows of latents (B, T, P, D) and actions (B, T - 1, A).

        Proprio is (B, T, Q), where the predictor takes it; `share` is the share of the budget that
        is spent.

        Raises:
            SettingError: the windows are too short for the rollout term.
        """
        inputs, targets = latents[:, :-1], latents[:, 1:]
        if self.rollout_steps > inputs.shape[1]:
            raise SettingError(
                f"rollout_steps {self.rollout_steps} needs windows of at least "
                f"{self.rollout_steps + 1} frames, got {latents.shape[1]}"
            )
        weights = self._token_weights(inputs, targets)
        sensed = None if proprio is None else proprio[:, :-1]
        predicted = self.predictor(inputs, actions, sensed)
        forced_loss = _weighted_l1(predicted, targets, weights)
        parts = {"forced_loss": forced_loss}
        loss = forced_loss
        if self.rollout_steps > 1 and share >= self.rollout_from:
            rollout_loss = self._rollout_loss(predicted, latents, actions, sensed, weights)
            parts["rollout_loss"] = rollout_loss
            loss = loss + self.rollout_weight * rollout_loss
        return loss, parts

    def _rollout_loss(
        self,
        predicted: Tensor,
        latents: Tensor,
        actions: Tensor,
        sensed: Tensor | None,
        weights: Tensor,
    ) -> Tensor:
        terms = []
        for j in range(1, self.rollout_steps):
            own = torch.cat([latents[:, :1], predicted[:, :-1].detach()], dim=1)
            predicted = self.predictor(own, actions, sensed)
            terms.append(_weighted_l1(predicted[:, j:], latents[:, j + 1 :], weights[:, j:]))
        return torch.stack(terms).mean()

    def _token_weights(self, inputs: Tensor, targets: Tensor) -> Tensor:
        change = (targets - inputs).abs().mean(-1)  # (B, T - 1, P)
        relative = change / change.mean().clamp_min(1e-6)
        return (1 + self.change_weight * relative) / (1 + self.change_weight)


def _weighted_l1(predicted: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return ((predicted - targets).abs().mean(-1) * weights).mean()


@torch.no_grad()
def horizon_errors(
    world_model: WorldModel,
    latents: Tensor,
    actions: Tensor,
    proprio: Tensor | None = None,
    *,
    context_len: int,
) -> dict[str, Tensor]:
    """Open-loop L1 error per horizon, beside its floors.

    Args:
        world_model: rolls out.
        latents: true windows (B, T, P, D).
        actions: (B, T - 1, A); A may be 0.
        proprio: (B, T, Q), where the world model takes it; only that of observed frames is used.
        context_len: observed frames C; the T - C others are predicted.

    Returns:
        `true`, `shuffled` (another window's actions, where there are any) and `copy` (the last
        observed frame), each (T - C,).
    """
    context, future = latents[:, :context_len], latents[:, context_len:]
    past, plan = actions[:, : context_len - 1], actions[:, context_len - 1 :]
    sensed = None if proprio is None else proprio[:, :context_len]

    def error(imagined: Tensor) -> Tensor:
        return (imagined - future).abs().mean(dim=(0, 2, 3))

    def imagine(plan: Tensor) -> Tensor:
        return world_model.rollout(context, past, plan.unsqueeze(1), sensed).squeeze(1)

    errors = {"true": error(imagine(plan))}
    if actions.shape[-1]:
        errors["shuffled"] = error(imagine(plan.roll(1, dims=0)))
    return errors | {"copy": error(context[:, -1:].expand_as(future))}


def horizon_figures(errors: dict[str, Tensor]) -> dict[str, float]:
    """Flatten `horizon_errors` into named figures for the log.

    `h<k>_true`, `h<k>_shuffled`, `h<k>_copy` per horizon k, `rollout_error` (mean over horizons
    with the true actions) and, where there are actions, `action_ratio` (shuffled / true at the
    first).
    """
    figures = {
        f"h{k}_{name}": value
        for name, row in errors.items()
        for k, value in enumerate(row.tolist(), start=1)
    }
    figures["rollout_error"] = float(errors["true"].mean())
    if "shuffled" in errors:
        figures["action_ratio"] = float(errors["shuffled"][0] / errors["true"][0].clamp_min(1e-9))
    return figures
