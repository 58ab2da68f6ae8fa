"""The world model: pixels to latents, latents and actions to imagined latents.

Shapes: B problems, N candidates, C context frames, T imagined steps, P tokens, D width, A actions,
Q proprio.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from vjepa_wm.bounds import float32_inside
from vjepa_wm.costs import CostCallable, Goal, score
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.errors import SettingError
from vjepa_wm.frame_predictor import FramePredictor
from vjepa_wm.gpu_memory import spare_bytes
from vjepa_wm.metric import TemporalMetric
from vjepa_wm.observations import Pixels
from vjepa_wm.threads import side_by_side

CPU_TOKENS_AT_ONCE = 512  # per thread: what passes from layer to layer stays in its cache
LEAST_TOKENS = 256  # that are worth a thread of their own: with fewer, Python is what is waited for
CPU_MEMORY_MB = 64.0  # of a rollout
MOST_WIDTH = 512  # of what is imagined a thread each: the products of wider nets share threads well

LatentCost = CostCallable  # latents (B,N,T,P,D), goal (B,P,D) -> (B,N); see vjepa_wm.costs


@dataclass(frozen=True)
class ActionSpec:
    """The actions a world model was trained on.

    Attributes:
        low: lowest value of each entry, A finite numbers.
        high: highest value of each entry, above `low`.
        frame_skip: environment steps per action, which is repeated for each of them.
        units: of each entry, where they are known.
        fps: actions per second, where that is known.
        actions_per_step: actions K that follow one another in a model step. The predictor takes
            them side by side, K * A wide, as DINO-WM does (arXiv 2411.04983).

    Raises:
        SettingError: the bounds are no such numbers, or a count is less than 1.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    frame_skip: int
    units: tuple[str, ...] | None = None
    fps: float | None = None
    actions_per_step: int = 1

    def __post_init__(self) -> None:
        for name in ("low", "high"):  # lists and arrays as well: what a space or a file holds
            object.__setattr__(self, name, tuple(float(bound) for bound in getattr(self, name)))
        is_box = len(self.low) == len(self.high) and all(
            math.isfinite(low) and math.isfinite(high) and low < high
            for low, high in zip(self.low, self.high, strict=True)
        )
        if not is_box:
            raise SettingError(
                f"action bounds: wanted finite numbers, low < high, as many of each, got "
                f"{self.low} and {self.high}"
            )
        for name in ("frame_skip", "actions_per_step"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name}: wanted at least 1, got {getattr(self, name)}")

    @property
    def width(self) -> int:
        """Numbers K * A a model step is conditioned on."""
        return self.actions_per_step * len(self.low)

    def limits(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Bounds (K * A,) of the float32 actions of a model step, none beyond the float64 ones."""
        low, high = float32_inside(self.low, self.high)
        return tuple(
            torch.from_numpy(bound).repeat(self.actions_per_step).to(device)
            for bound in (low, high)
        )


class Integrator(Protocol):
    """Knows how an action moves the proprio, so that nothing has to predict it."""

    def __call__(self, proprio: Tensor, actions: Tensor) -> Tensor:
        """Move proprio (..., Q) by actions (..., A)."""

    def check(self, proprio: Tensor) -> None:
        """Raise a `SettingError` when observed proprio (..., Q) is not in the wanted units."""


class WorldModel(nn.Module):
    """A frozen encoder, an action-conditioned predictor, and what they were trained on.

    Args:
        encoder: pixels to latents.
        predictor: latents and actions to the next latents.
        action_spec: the actions it understands.
        metric: counts recorded steps between latents, if one was trained.
        integrate: moves the observed proprio along candidates, where the predictor takes proprio.
        memory_mb: most working memory of a rollout in megabytes; candidates are imagined in chunks
            that fit. Results do not depend on it. None is 64 on a CPU, and on a GPU a quarter of
            what is free when the first plan is made.

    Raises:
        SettingError: the predictor takes proprio and nothing integrates it, or the reverse; or its
            actions have another width than `action_spec`.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        predictor: FramePredictor,
        *,
        action_spec: ActionSpec,
        metric: TemporalMetric | None = None,
        integrate: Integrator | None = None,
        memory_mb: float | None = None,
    ) -> None:
        super().__init__()
        if (integrate is None) != (predictor.proprio_dim is None):
            raise SettingError(
                "a predictor that takes proprio needs integrate, and only such a one: got "
                f"proprio_dim {predictor.proprio_dim} and integrate {integrate}"
            )
        if action_spec.width != predictor.action_dim:
            raise SettingError(
                f"action_spec: wanted {predictor.action_dim} numbers per model step, as many as "
                f"the predictor takes, got {action_spec.actions_per_step} actions of "
                f"{len(action_spec.low)}"
            )
        self.encoder = encoder
        self.predictor = predictor
        self.action_spec = action_spec
        self.metric = metric
        self.integrate = integrate
        self.memory_mb = memory_mb
        self._spare_bytes: float | None = None

    @property
    def takes_proprio(self) -> bool:
        """Whether rollouts need the observed proprio."""
        return self.integrate is not None

    def encode(self, pixels: Pixels) -> Tensor:
        """Encode uint8 frames (B, T, H, W, C), of a tensor or an array, to latents (B, T, P, D)."""
        return self.encoder.encode(pixels)

    def next(self, latents: Tensor, actions: Tensor, proprio: Tensor | None = None) -> Tensor:
        """Predict the frame after each of (B, T, P, D) under actions (B, T, A).

        Proprio is (B, T, Q), where the predictor takes it.
        """
        return self.predictor(latents, actions, proprio)

    def move(self, proprio: Tensor, actions: Tensor) -> Tensor:
        """Move proprio (..., Q) by the actions of a model step (..., K * A), one after another."""
        for action in actions.unflatten(-1, (self.action_spec.actions_per_step, -1)).unbind(-2):
            proprio = self.integrate(proprio, action)
        return proprio

    @torch.no_grad()
    def rollout(
        self,
        context: Tensor,
        past_actions: Tensor,
        actions: Tensor,
        proprio: Tensor | None = None,
    ) -> Tensor:
        """Imagine candidates.

        The observed past is computed once per problem and shared by its candidates; each imagined
        step computes its own tokens only. Proprio is not imagined but integrated along the actions.

        Args:
            context: latents of the last observed frames (B, C, P, D).
            past_actions: the actions between them (B, C - 1, A).
            actions: candidates (B, N, T, A).
            proprio: observed at the frames of the context (B, C, Q), where the predictor takes it.

        Returns:
            Imagined latents (B, N, T, P, D).

        Raises:
            SettingError: C - 1 + T frames are more than the predictor was trained on, or proprio is
                missing, not wanted, or in other units than wanted.
        """
        return self.observe(context, past_actions, proprio).rollout(actions)

    def observe(
        self, context: Tensor, past_actions: Tensor, proprio: Tensor | None = None
    ) -> "Imagination":
        """Compute what was observed, once; any number of candidates are imagined from it.

        The arguments and errors are those of `rollout`; gradients do not flow to them.
        """
        self._check_proprio(proprio, context)
        return Imagination(self, context, past_actions, proprio)

    def _check_proprio(self, proprio: Tensor | None, context: Tensor) -> None:
        """Check the units here, once: waiting for a GPU in every step would be slow."""
        if not self.takes_proprio and proprio is not None:
            raise SettingError("this world model takes no proprio, got some: leave it out")
        if self.takes_proprio and proprio is None:
            raise SettingError(
                f"this world model needs the observed proprio (B, C, {self.predictor.proprio_dim}) "
                "beside the context, got none"
            )
        if proprio is None:
            return
        wanted = (*context.shape[:2], self.predictor.proprio_dim)
        if proprio.shape != wanted:
            raise SettingError(
                f"proprio: wanted {wanted}, one row per frame of the context, "
                f"got {tuple(proprio.shape)}"
            )
        self.integrate.check(proprio)

    def costs(
        self,
        context: Tensor,
        past_actions: Tensor,
        actions: Tensor,
        proprio: Tensor | None = None,
        *,
        goal: Tensor | Goal,
        cost: LatentCost,
    ) -> Tensor:
        """Score candidates (B, N, T, A) against goals, in chunks; returns (B, N).

        Goals are latents (B, P, D), or whatever else the cost wants of them (`vjepa_wm.costs`).
        Where actions require gradients these flow back to them; then all chunks are in memory.
        The other arguments are those of `rollout`. To score several times from the same past, as
        planners do, call `observe` once and its `costs` each time.
        """
        imagination = self.observe(context, past_actions, proprio)
        return imagination.costs(actions, goal=goal, cost=cost)

    def rows_at_once(self, horizon: int, *, workers: int = 1) -> int:
        """How many candidates each of some workers imagines at once.

        All together fit the memory; on a CPU those of one also fit its caches.
        """
        net = self.predictor
        rows = int(self._memory_bytes() / (workers * horizon * net.bytes_per_frame))
        if next(net.parameters()).device.type == "cpu":
            tokens = CPU_TOKENS_AT_ONCE * max(1, torch.get_num_threads() // workers)
            rows = min(rows, -(-tokens // net.tokens_per_frame))
        return max(1, rows)

    def _memory_bytes(self) -> float:
        """What a rollout may take; of a GPU a part of what was free when it was first asked."""
        device = next(self.predictor.parameters()).device
        if self.memory_mb is not None or device.type != "cuda":
            return (self.memory_mb or CPU_MEMORY_MB) * 2**20
        if self._spare_bytes is None:
            self._spare_bytes = spare_bytes(device)
        return self._spare_bytes

    def workers(self, candidates: int, horizon: int) -> int:
        """How many threads imagine so many candidates side by side, where no gradients are wanted.

        Only on a CPU, where each has enough to do but not in single operators, and as far as the
        memory allows. One where the calling thread has set something that other threads would not
        see: autocast, or a mode that watches operators, such as a FLOP counter.
        """
        net = self.predictor
        is_set_apart = torch.is_autocast_enabled("cpu") or is_in_torch_dispatch_mode()
        is_wide = net.width > MOST_WIDTH
        if next(net.parameters()).device.type != "cpu" or is_set_apart or is_wide:
            return 1
        tokens = candidates * net.tokens_per_frame
        in_memory = int(self._memory_bytes() / (horizon * net.bytes_per_frame))
        return max(1, min(torch.get_num_threads(), tokens // LEAST_TOKENS, in_memory))


class Imagination:
    """What candidates are imagined from: an observed past, computed when this is made.

    All candidates share it, however many times and in however many chunks they are scored.

    Args:
        world_model: imagines; its `observe` makes these, and checks the proprio before.
        context: latents of the last observed frames (B, C, P, D).
        past_actions: the actions between them (B, C - 1, A).
        proprio: observed at the frames of the context (B, C, Q), where the predictor takes it.
    """

    def __init__(
        self,
        world_model: WorldModel,
        context: Tensor,
        past_actions: Tensor,
        proprio: Tensor | None,
    ) -> None:
        self.world_model = world_model
        self.latents = context[:, -1]  # (B, P, D)
        self.proprio = None if proprio is None else proprio[:, -1]  # (B, Q)
        with torch.no_grad():
            self.past = world_model.predictor.observe(
                context[:, :-1], past_actions, None if proprio is None else proprio[:, :-1]
            )

    @torch.no_grad()
    def rollout(self, actions: Tensor) -> Tensor:
        """Imagine candidates (B, N, T, A); returns latents (B, N, T, P, D)."""
        self._check(actions)
        everything = slice(None)
        return self._rollout(everything, actions, self._moved(everything, actions))

    def costs(self, actions: Tensor, *, goal: Tensor | Goal, cost: LatentCost) -> Tensor:
        """Score candidates (B, N, T, A) against goals; returns (B, N). See `WorldModel.costs`."""
        self._check(actions)
        batch, candidates, horizon = actions.shape[:3]
        if len(goal) != batch:
            raise SettingError(f"goal: wanted {batch}, one per problem, got {len(goal)}")
        model = self.world_model
        has_grad = torch.is_grad_enabled() and actions.requires_grad
        workers = 1 if has_grad else model.workers(batch * candidates, horizon)
        chunks = _chunks(batch, candidates, model.rows_at_once(horizon, workers=workers), workers)

        def imagine(chunk: tuple[slice, slice]) -> tuple[Tensor, Tensor | None]:
            problems, columns = chunk
            some = actions[problems, columns]
            proprio = self._moved(problems, some)
            return self._rollout(problems, some, proprio), proprio

        def scored(together: list[tuple[slice, slice]]) -> list[Tensor]:
            imagined = side_by_side(imagine, together, workers=workers)
            return [
                score(
                    cost,
                    latents,
                    goal[problems],
                    actions=actions[problems, columns],
                    proprio=None if proprio is None else proprio[:, :, 1:],
                )
                for (problems, columns), (latents, proprio) in zip(together, imagined, strict=True)
            ]

        rounds = (chunks[first : first + workers] for first in range(0, len(chunks), workers))
        with torch.set_grad_enabled(has_grad):
            found = [costs for together in rounds for costs in scored(together)]
        per_row = sum(problems.start == 0 for problems, _ in chunks)
        rows = [torch.cat(found[i : i + per_row], dim=1) for i in range(0, len(found), per_row)]
        return torch.cat(rows, dim=0)

    def _check(self, actions: Tensor) -> None:
        batch, width = len(self.latents), self.world_model.predictor.action_dim
        if actions.ndim != 4 or len(actions) != batch or actions.shape[3] != width:
            raise SettingError(
                f"wanted candidates (B, N, T, A) with B = {batch} and A = {width}, "
                f"got {tuple(actions.shape)}"
            )

    def _rollout(self, problems: slice, actions: Tensor, proprio: Tensor | None) -> Tensor:
        """Imagine candidates of some problems, with their proprio (B, N, 1 + T, Q)."""
        net = self.world_model.predictor
        batch, candidates, horizon = actions.shape[:3]
        net.check_length(self.past.length // net.tokens_per_frame + horizon)
        caches = self.past[problems].caches(
            max_tokens=self.past.length + horizon * net.tokens_per_frame, copies=candidates
        )
        latents = self.latents[problems].repeat_interleave(candidates, dim=0)  # (B * N, P, D)
        now = None if proprio is None else proprio[:, :, :-1].flatten(0, 1)  # (B * N, T, Q)
        conditions = net.condition(actions.flatten(0, 1), now)
        imagined = []
        for condition in conditions.unbind(dim=1):
            latents = net.step(latents, condition, caches)
            imagined.append(latents)
        return torch.stack(imagined, dim=1).unflatten(0, (batch, candidates))

    def _moved(self, problems: slice, actions: Tensor) -> Tensor | None:
        """Integrate the last observed proprio along candidates: (B, N, 1 + T, Q), itself first."""
        if self.proprio is None:
            return None
        moved = [self.proprio[problems].unsqueeze(1).expand(-1, actions.shape[1], -1)]
        for action in actions.unbind(dim=2):
            moved.append(self.world_model.move(moved[-1], action))
        return torch.stack(moved, dim=2)


def _chunks(batch: int, candidates: int, rows: int, workers: int) -> list[tuple[slice, slice]]:
    """Cut B problems x N candidates into chunks of at most so many rows.

    A chunk is some candidates of one problem, or all candidates of some problems.
    """
    if workers > 1:  # all get as many, none waits for the last one
        rounds = -(-batch * candidates // (rows * workers))
        rows = -(-batch * candidates // (rounds * workers))
    problems, columns = max(1, rows // candidates), min(candidates, rows)
    return [
        (slice(b, b + problems), slice(n, n + columns))
        for b in range(0, batch, problems)
        for n in range(0, candidates, columns)
    ]
