"""The agent with the true dynamics in place of its predictor: what the predictor costs it.

The benchmarks of model-based reinforcement learning call planning with what the learned model
stands for "ground-truth dynamics" (Wang et al., arXiv 1907.02057).

Shapes: B problems, N candidates, T planned steps, F observed steps, A action width, Q proprio
width, P tokens, D latent width, H W image.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from planners import Planner
from vjepa_wm.agent import MPCAgent
from vjepa_wm.costs import GoalCost, score
from vjepa_wm.data.latents import frames_per_batch
from vjepa_wm.data.recorder import Told
from vjepa_wm.errors import DataError
from vjepa_wm.world_model import LatentCost, WorldModel


class TrueDynamicsAgent(MPCAgent):
    """Plans as `MPCAgent` does, with frames that are simulated and encoded, not imagined.

    Privileged: it tries its candidates out in the very environments it acts in. Planner, noise,
    encoder and cost are those of `MPCAgent`, so what it reaches beyond that agent is lost in the
    predictor, and what it misses beside the true distance is lost in encoder and cost. There is no
    deadline: rendering and encoding would use it up before anything is found.

    Args:
        envs: The environments of the batch, in its order.
        world_model: Encodes; its predictor is not used.
        planner: Searches action sequences.
        cost: Scores the latents of simulated frames against the goal's.
        context_len: As of the `MPCAgent` it stands beside, whose limits it keeps.
        replan_every: Actions executed of each plan.
        seed: Of the planner's noise.

    Raises:
        DataError: The environments cannot be simulated from where they are.
        SettingError: See `MPCAgent`.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env],
        world_model: WorldModel,
        planner: Planner,
        cost: LatentCost,
        *,
        context_len: int,
        replan_every: int,
        seed: int = 0,
    ) -> None:
        super().__init__(
            SimulatedWorld(world_model),
            planner,
            cost,
            context_len=context_len,
            replan_every=replan_every,
            seed=seed,
        )
        self._envs: list[Any] = [Told(env) for env in envs]  # all of the batch
        if not hasattr(self._envs[0], "simulate_obs"):
            raise DataError(
                f"{envs[0].spec.id} has no simulate_obs, wanted of an environment whose true "
                "dynamics are planned in: leave the row true_dynamics out"
            )

    def _plan_together(self, env_ids: list[int]) -> None:
        self.world_model.envs = [self._envs[i] for i in env_ids]
        super()._plan_together(env_ids)


class SimulatedWorld(WorldModel):
    """A world model whose future is not imagined but simulated, from where environments are.

    Args:
        world_model: What it has all else of.

    Attributes:
        envs: The B environments of the problems that are planned for next.
    """

    def __init__(self, world_model: WorldModel) -> None:
        super().__init__(
            world_model.encoder,
            world_model.predictor,
            action_spec=world_model.action_spec,
            metric=world_model.metric,
            integrate=world_model.integrate,
        )
        self.envs: Sequence[Any] = ()

    def observe(
        self, context: Tensor, past_actions: Tensor, proprio: Tensor | None = None
    ) -> "SimulatedFutures":
        """Take the environments as they are; what was seen of them tells nothing more."""
        del context, past_actions, proprio
        return SimulatedFutures(self.envs, self)


class SimulatedFutures:
    """What truly comes of candidates, scored in latents.

    Args:
        envs: The B environments, each in the state its candidates start from.
        world_model: Encodes, and says how often an action is repeated.
    """

    def __init__(self, envs: Sequence[Any], world_model: WorldModel) -> None:
        self._envs = envs
        self._world_model = world_model

    @torch.no_grad()
    def costs(self, actions: Tensor, *, goal: Tensor, cost: LatentCost) -> Tensor:
        """Score candidates (B, N, T, K * A) against goals (B, P, D); returns (B, N)."""
        spec = self._world_model.action_spec
        env_steps = spec.actions_per_step * spec.frame_skip  # of a model step
        first = actions.shape[2] - 1 if reads_last_frame_only(cost) else 0
        steps = [(t + 1) * env_steps - 1 for t in range(first, actions.shape[2])]
        shape = actions.shape[1], -1, len(spec.low)  # (N, T * K, A)
        rows = []
        # One environment after another: all pictures of a batch would not fit a laptop's memory.
        for b, env in enumerate(self._envs):
            single = actions[b].detach().float().cpu().numpy().reshape(shape)
            obs = env.simulate_obs(single.repeat(spec.frame_skip, axis=1), steps=steps)
            proprio = torch.from_numpy(obs["proprio"]).unsqueeze(0).to(actions.device)
            rows.append(
                score(
                    cost,
                    self._encode(obs["pixels"]).unsqueeze(0),
                    goal[b : b + 1],
                    actions=actions[b : b + 1],
                    proprio=proprio if self._world_model.takes_proprio else None,
                )
            )
        return torch.cat(rows)

    def _encode(self, pixels: np.ndarray) -> Tensor:
        """Encode frames (N, F, H, W, 3) to latents (N, F, P, D), as many at once as fit."""
        encoder = self._world_model.encoder
        device = next(self._world_model.parameters()).device
        frames = torch.from_numpy(pixels).flatten(0, 1).unsqueeze(1)  # (N * F, 1, H, W, 3)
        at_once = frames_per_batch(encoder.frame_bytes, device)
        encoded = [encoder.encode(part.to(device)) for part in frames.split(at_once)]
        return torch.cat(encoded).squeeze(1).unflatten(0, pixels.shape[:2])


def reads_last_frame_only(cost: LatentCost) -> bool:
    """Tell whether a cost looks at no other frame than the last; one not known looks at all."""
    return isinstance(cost, GoalCost) and cost.over_steps == "last"
