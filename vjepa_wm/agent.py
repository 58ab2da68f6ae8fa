"""A model-predictive agent: observation history -> latents -> planner -> action.

It sees pixels, a goal image and, where the world model takes it, the robot's own proprio; never
simulator state, reward or success.

Shapes: n environments, H W C image, A action width, T planned steps, K actions per step.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from planners import Planner, shift
from vjepa_wm.agent_memory import Past, Slot
from vjepa_wm.agent_signatures import PolicySignatures
from vjepa_wm.costs import score
from vjepa_wm.cuda_graphs import RecordedCosts
from vjepa_wm.errors import SettingError
from vjepa_wm.observations import (
    Pixels,
    read_env_ids,
    read_frames,
    read_goal,
    read_mask,
    read_proprio,
    read_subgoals,
    replaced,
)
from vjepa_wm.world_model import Imagination, LatentCost, WorldModel


class MPCAgent(PolicySignatures):
    """Plans to a goal image in the latent space of a world model, and replans as it goes.

    One object serves a single environment (pixels (H, W, 3) in, action (A,) out) and n of them
    ((n, H, W, 3) in, (n, A) out); which of the two is told by the goal. Each environment's actions
    follow from the seed, the number of episodes before it and its own history, not from how many
    are planned for together.

    Args:
        world_model: encodes and imagines.
        planner: searches action sequences.
        cost: scores imagined latents against the goal's.
        context_len: observed frames the predictor sees.
        replan_every: actions executed of each plan, at most all T * K.
        seed: of the planner's noise.
        deadline_ms: milliseconds a plan may take; the best found until then is followed. None lets
            the planner finish. What is planned with a deadline depends on the machine.
        subgoal_within: cost of what is observed, in the units of `cost`, from which on a subgoal
            counts as passed. None does not look.
        subgoal_steps: actions after which the next goal is turned to, passed or not, as V-JEPA
            2-AC does (arXiv 2506.09985). None waits.
        cuda_graphs: whether a CUDA GPU replays what it did for plans of the same shapes.

    Raises:
        SettingError: the world model takes no actions, the planner's horizon and the context are
            longer than the predictor was trained on, or `context_len`, `replan_every` or
            `subgoal_steps` is out of range.
    """

    def __init__(
        self,
        world_model: WorldModel,
        planner: Planner,
        cost: LatentCost,
        *,
        context_len: int,
        replan_every: int,
        seed: int = 0,
        deadline_ms: float | None = None,
        subgoal_within: float | None = None,
        subgoal_steps: int | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        if not world_model.action_spec.low:
            raise SettingError("this world model takes no actions: it foresees, nothing is planned")
        frames, trained = context_len - 1 + planner.horizon, world_model.predictor.max_frames
        if context_len < 1:
            raise SettingError(f"context_len must be at least 1, got {context_len}")
        if frames > trained:
            raise SettingError(
                f"context_len {context_len} and horizon {planner.horizon} make {frames} frames; "
                f"the predictor was trained on {trained}: wanted context_len - 1 + horizon <= that"
            )
        planned = planner.horizon * world_model.action_spec.actions_per_step
        if not 1 <= replan_every <= planned:
            raise SettingError(
                f"replan_every must be between 1 and {planned}, the actions of a plan, got "
                f"{replan_every}"
            )
        if subgoal_steps is not None and subgoal_steps < 1:
            raise SettingError(f"subgoal_steps must be at least 1 or None, got {subgoal_steps}")
        self.world_model = world_model
        self.planner = planner
        self.cost = cost
        self.context_len = context_len
        self._num_kept = (context_len - 1) * world_model.action_spec.actions_per_step + 1
        self.replan_every = replan_every
        self.seed = int(seed)  # NumPy's would overflow
        self.deadline_ms = deadline_ms
        self.subgoal_within = subgoal_within
        self.subgoal_steps = subgoal_steps
        self._scores = RecordedCosts(is_on=cuda_graphs)
        self._num_episodes = 0  # begun so far: noise follows from it, not from how they are batched
        self.goal: Tensor | None = None  # latents (n, P, D) of what is planned for now
        self._num_plans = 0  # made so far, and the frames imagined for them
        self._num_frames = 0
        self._given_goal: Tensor | None = None  # pixels of all goals, as they were given

    @property
    def device(self) -> torch.device:
        """Where the world model lives."""
        return next(self.world_model.parameters()).device

    @property
    def frames_per_plan(self) -> float | None:
        """Frames imagined per plan, a mean over all so far: candidates x planned steps; else None.

        A gradient planner's also go backwards, which costs about twice as much again.
        """
        return self._num_frames / self._num_plans if self._num_plans else None

    # Inside `torch.inference_mode()` as well: its tensors are no use to planners that follow
    # gradients. Leaving it turns gradients on.
    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def reset(self, goal: Pixels | Mapping[str, Pixels], *, subgoals: Pixels | None = None) -> None:
        """Forget everything and take a goal image, and perhaps images to pass on the way there.

        Args:
            goal: uint8 pixels (H, W, 3) for one environment or (n, H, W, 3) for n, or a mapping
                that holds them under `pixels`, as `info["goal"]` does.
            subgoals: uint8 pixels (G, H, W, 3) or (n, G, H, W, 3), in the order to pass them in.

        Raises:
            SettingError: an image has another shape or dtype, or there are subgoals and neither
                `subgoal_within` nor `subgoal_steps` says when one is done with.
        """
        pixels = read_goal(goal)
        final = self._encode(pixels)
        is_single, count = pixels.ndim == 3, len(final)
        way = None if subgoals is None else self._way(subgoals, count=None if is_single else count)
        self._given_goal = pixels.clone()  # the caller may write the next one over it
        self.is_single, self.goal = is_single, final
        episodes = range(self._num_episodes, self._num_episodes + count)
        self.slots = [Slot(seed=self.seed * 1_000_003 + episode) for episode in episodes]
        self._num_episodes = episodes.stop
        if way is not None:
            for slot, row, goal in zip(self.slots, way, final, strict=True):
                slot.goals = [*row, goal]
            self.goal = way[:, 0].clone()

    def _way(self, subgoals: Pixels, *, count: int | None) -> Tensor:
        """Encode the subgoals of so many environments, or of the single one: (n, G, P, D)."""
        pixels = read_subgoals(subgoals, count=count)
        if self.subgoal_within is None and self.subgoal_steps is None:
            raise SettingError(
                "subgoals: nothing says when one is done with; give the agent subgoal_within, a "
                "cost, or subgoal_steps"
            )
        return self.world_model.encode(pixels.to(self.device))

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def set_goal(self, goal: Pixels | Mapping[str, Pixels], env_ids: np.ndarray) -> None:
        """Give new goals to some environments and forget their past.

        Args:
            goal: pixels (k, H, W, 3), or a mapping that holds them under `pixels`.
            env_ids: which environments, k numbers or a bool (n,) with k that are true, such as
                those whose episode was over.

        Raises:
            RuntimeError: there is no goal yet.
            SettingError: `env_ids` are no such numbers, or not as many as goals.
        """
        self._require_goal()
        pixels = read_goal(goal)
        latents = self._encode(pixels)
        numbers = read_env_ids(env_ids, count=len(self.slots))
        if len(latents) != len(numbers):
            raise SettingError(
                f"goal: wanted {len(numbers)}, one per environment of env_ids, got {len(latents)}"
            )
        self._given_goal = replaced(self._given_goal, numbers, pixels)
        for row, i in zip(latents, numbers, strict=True):
            self.goal[i] = row
            self.slots[i].goals = []
            self.slots[i].forget()

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def act(self, obs: Mapping[str, Pixels], *, is_active: np.ndarray | None = None) -> np.ndarray:
        """Choose the next action of every environment.

        Args:
            obs: `pixels` uint8 (H, W, 3) or (n, H, W, 3); where the world model takes proprio, also
                `proprio` (Q,) or (n, Q); other keys are not looked at.
            is_active: (n,) bool; the others cost nothing and get zeros. None is all.

        Returns:
            Actions float32 (A,) or (n, A), inside the bounds.

        Raises:
            RuntimeError: there is no goal yet.
            SettingError: the pixels have another shape or dtype, or another number of environments;
                the proprio is missing, or in other units than the world model's; or `is_active` is
                no such array.
        """
        self._require_goal()
        count = len(self.slots)
        pixels = read_frames(obs, count=count)
        is_active = np.ones(count, bool) if is_active is None else is_active
        active = np.flatnonzero(read_mask(is_active, count, "is_active"))
        done = [i for i in active if self.slots[i].wait == 0]  # with the action before
        if done:
            self._look_and_plan(done, pixels, self._proprio(obs, done))
        actions = np.zeros((count, len(self.world_model.action_spec.low)), np.float32)
        for i in active:
            actions[i] = self.slots[i].next_action(self.world_model.action_spec.frame_skip)
        return actions[0] if self.is_single else actions

    def _look_and_plan(self, env_ids: list[int], pixels: Tensor, proprio: Tensor | None) -> None:
        pasts = [self.slots[i].past() for i in env_ids]
        self._observe(env_ids, pixels, proprio)
        try:
            self._pass_subgoals(env_ids)
            self._plan([i for i in env_ids if self._needs_plan(self.slots[i])])
        except BaseException:  # who tries again shows the same frame once more
            for i, past in zip(env_ids, pasts, strict=True):
                self.slots[i].go_back(past)
            raise

    def _needs_plan(self, slot: Slot) -> bool:
        return slot.plan is None or slot.executed >= self.replan_every

    def _encode(self, pixels: Tensor) -> Tensor:
        """Encode single frames (..., H, W, 3) to latents (n, P, D)."""
        pixels = pixels.unsqueeze(0) if pixels.ndim == 3 else pixels
        return self.world_model.encode(pixels.unsqueeze(1).to(self.device)).squeeze(1)

    def _proprio(self, obs: Mapping[str, Pixels], env_ids: list[int]) -> Tensor | None:
        """Proprio (k, Q) of some environments, where the world model takes it."""
        if not self.world_model.takes_proprio:
            return None
        shape = (len(self.slots), self.world_model.predictor.proprio_dim)
        need = f"this world model plans with proprio (Q,) or (n, Q), n and Q being {shape}"
        proprio = read_proprio(obs, shape=shape, need=need)[env_ids].to(self.device)
        self.world_model.integrate.check(proprio)
        return proprio

    def _observe(self, env_ids: list[int], pixels: Tensor, proprio: Tensor | None) -> None:
        rows = [None] * len(env_ids) if proprio is None else proprio
        for i, latents, row in zip(env_ids, self._encode(pixels[env_ids]), rows, strict=True):
            self.slots[i].observe(latents, row, self._num_kept)

    def _pass_subgoals(self, env_ids: list[int]) -> None:
        """Turn to the next goal where the present one was only on the way, and is done with."""
        for i in env_ids:
            slot = self.slots[i]
            if slot.num_passed + 1 < len(slot.goals) and self._is_done_with(slot):
                self.goal[i] = slot.next_goal()

    def _is_done_with(self, slot: Slot) -> bool:
        if self.subgoal_steps is not None and slot.steps_to_goal >= self.subgoal_steps:
            return True
        if self.subgoal_within is None:
            return False
        latents = slot.latents[-1][None, None, None]  # (1, 1, 1, P, D)
        proprio = None if slot.proprio[-1] is None else slot.proprio[-1][None, None, None]
        still = latents.new_zeros(1, 1, 1, self.world_model.action_spec.width)
        goal = slot.goals[slot.num_passed].unsqueeze(0)
        cost = score(self.cost, latents, goal, actions=still, proprio=proprio)
        return float(cost) <= self.subgoal_within

    def _plan(self, env_ids: list[int]) -> None:
        """Plan for some environments, together where they have seen equally much."""
        for length in sorted({len(self.slots[i].latents) for i in env_ids}):
            self._plan_together([i for i in env_ids if len(self.slots[i].latents) == length])

    def _plan_together(self, env_ids: list[int]) -> None:
        slots = [self.slots[i] for i in env_ids]
        low, high = self.world_model.action_spec.limits(self.device)
        goal = self.goal[env_ids]
        imagination = self._observed([slot.past() for slot in slots])
        plan = self.planner.plan(
            lambda actions: self._scores(imagination, actions, goal=goal, cost=self.cost),
            low=low,
            high=high,
            batch_size=len(slots),
            warm_start=self._warm_start(slots),
            seeds=torch.tensor([slot.next_seed for slot in slots]),
            deadline_ms=self.deadline_ms,
        )
        self._num_plans += len(slots)
        self._num_frames += len(slots) * plan.num_evaluated * self.planner.horizon
        for slot, actions, cost in zip(slots, plan.actions, plan.cost.tolist(), strict=True):
            slot.take(actions.reshape(-1, len(self.world_model.action_spec.low)), cost)

    def _observed(self, pasts: list[Past]) -> Imagination:
        """Show the world model equally long pasts of some environments."""
        spec = self.world_model.action_spec
        pasts = [past.spaced(spec.actions_per_step) for past in pasts]
        context = torch.stack([torch.stack(past.latents) for past in pasts])  # (n, C, P, D)
        taken = np.array([past.actions for past in pasts], dtype=np.float32)
        past_actions = torch.from_numpy(taken).to(self.device)
        past_actions = past_actions.view(len(pasts), context.shape[1] - 1, spec.width)
        proprio = None  # (n, C, Q)
        if self.world_model.takes_proprio:
            proprio = torch.stack([torch.stack(past.proprio) for past in pasts])
        return self.world_model.observe(context, past_actions, proprio)

    def imagine_plan(self, env_id: int = 0) -> Tensor:
        """Imagine once more what an environment's plan was thought to lead to.

        From what had been observed when it was made, to all of its steps, also those since done.

        Returns:
            Latents (T, P, D), for people to look at; the agent has no use for them.

        Raises:
            RuntimeError: there is no plan yet.
        """
        slot = self.slots[env_id] if self.goal is not None else None
        if slot is None or slot.plan is None:
            raise RuntimeError("no plan yet: call agent.act(obs) first")
        plan = slot.plan.view(1, 1, self.planner.horizon, -1)
        return self._observed([slot.planned_from]).rollout(plan)[0, 0]

    def _warm_start(self, slots: list[Slot]) -> Tensor:
        """Last plans moved on by what was executed; new environments start from rest."""
        low, high = self.world_model.action_spec.limits("cpu")
        shape = self.planner.horizon, self.world_model.action_spec.width
        fresh = ((low + high) / 2).expand(shape)
        starts = [fresh if s.plan is None else shift(s.plan, s.executed) for s in slots]
        return torch.stack([start.reshape(shape).to(self.device) for start in starts])
