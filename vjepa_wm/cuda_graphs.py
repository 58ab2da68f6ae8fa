"""What a GPU does for a plan, recorded once and replayed (CUDA graphs).

Imagining with a small predictor is hundreds of small kernels; asking for them one by one takes
longer than they do. A recording asks for all of them at once. What is computed is the same.

Shapes: B problems, N candidates, T steps, P tokens, D width, A actions.
"""

import copy
import logging
from collections import Counter, OrderedDict

import torch
from torch import Tensor

from vjepa_wm.nn.kv_cache import Past
from vjepa_wm.world_model import Imagination, LatentCost

logger = logging.getLogger(__name__)

COMES_OFTEN = 3  # calls with the same shapes after which they are worth a recording
MOST_RECORDINGS = 16  # that are kept, the latest: each holds memory of its own
# Imagined in a recording; with more a GPU is busy for longer than it is asked
MOST_BYTES = 256 * 2**20
WARM_UPS = 2  # runs before recording, in which libraries make their workspaces

_Key = tuple[object, ...]


class RecordedCosts:
    """Scores candidates as `Imagination.costs` does; on a GPU it replays what it recorded.

    A recording is of one cost and one set of shapes. The first times these come, where much is
    imagined at once, where there is no CUDA GPU, and where gradients are wanted, costs are computed
    as ever. A cost that cannot be recorded, as it looks at its numbers, is warned of once, and
    computed from then on. Numbers a cost keeps, such as weights, are recorded as they are: give the
    agent another cost to change them.

    Args:
        is_on: whether anything is recorded.
    """

    def __init__(self, *, is_on: bool = True) -> None:
        self.is_on = is_on
        self._cost: LatentCost | None = None
        self._is_recordable = True
        self._seen: Counter[_Key] = Counter()
        self._recordings: OrderedDict[_Key, _Recording] = OrderedDict()

    def __call__(
        self, imagination: Imagination, actions: Tensor, *, goal: Tensor, cost: LatentCost
    ) -> Tensor:
        """Score candidates (B, N, T, A) against goals (B, P, D); returns (B, N)."""
        recording = None
        if self._is_worth_it(imagination, actions):
            recording = self._recording(imagination, actions, goal, cost)
        if recording is None:
            return imagination.costs(actions, goal=goal, cost=cost)
        return recording.replay(imagination, actions, goal)

    def _is_worth_it(self, imagination: Imagination, actions: Tensor) -> bool:
        has_grad = torch.is_grad_enabled() and actions.requires_grad
        can_record = self.is_on and actions.device.type == "cuda" and not has_grad
        return (
            can_record and isinstance(imagination, Imagination) and is_small(imagination, actions)
        )

    def _recording(
        self, imagination: Imagination, actions: Tensor, goal: Tensor, cost: LatentCost
    ) -> "_Recording | None":
        """Return what was recorded of these shapes, recording it now if they come often."""
        if cost is not self._cost:
            self._cost, self._is_recordable = cost, True
            self._seen.clear()
            self._recordings.clear()
        tensors = [*_tensors(imagination), goal, actions]
        key = (id(imagination.world_model), *((x.shape, x.dtype) for x in tensors))
        self._seen[key] += 1
        if key in self._recordings:
            self._recordings.move_to_end(key)
        elif self._is_recordable and self._seen[key] > COMES_OFTEN:
            self._record(key, imagination, actions, goal, cost)
        return self._recordings.get(key)

    def _record(
        self,
        key: _Key,
        imagination: Imagination,
        actions: Tensor,
        goal: Tensor,
        cost: LatentCost,
    ) -> None:
        try:
            self._recordings[key] = _Recording(imagination, actions, goal, cost)
        except RuntimeError as error:
            self._is_recordable = False
            logger.warning("planning goes on without CUDA graphs: %s", error)
        if len(self._recordings) > MOST_RECORDINGS:
            self._recordings.popitem(last=False)


def is_small(imagination: Imagination, actions: Tensor) -> bool:
    """Whether candidates (B, N, T, A) are so little work that asking for it is what takes time."""
    frames = actions.shape[:3].numel()
    return frames * imagination.world_model.predictor.bytes_per_frame <= MOST_BYTES


class _Recording:
    """The kernels of one call, the tensors they read, and the one they write."""

    def __init__(
        self, imagination: Imagination, actions: Tensor, goal: Tensor, cost: LatentCost
    ) -> None:
        self._imagination = mine = _copy(imagination)  # kept, and with it the weights that are read
        self._actions, self._goal = actions.clone(), goal.clone()
        self._inputs = [*_tensors(mine), self._goal, self._actions]
        aside = torch.cuda.Stream(actions.device)
        aside.wait_stream(torch.cuda.current_stream(actions.device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                mine.costs(self._actions, goal=self._goal, cost=cost)
        torch.cuda.current_stream(actions.device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=aside):  # whose device is that of the actions
            self._costs = mine.costs(self._actions, goal=self._goal, cost=cost)

    def replay(self, imagination: Imagination, actions: Tensor, goal: Tensor) -> Tensor:
        """Score other candidates, of other pasts and goals, all of the same shapes."""
        torch._foreach_copy_(self._inputs, [*_tensors(imagination), goal, actions])
        self._graph.replay()
        return self._costs.clone()


def _tensors(imagination: Imagination) -> list[Tensor]:
    """All that candidates are imagined from."""
    proprio = [] if imagination.proprio is None else [imagination.proprio]
    past = [part for pair in imagination.past.layers if pair is not None for part in pair]
    return [imagination.latents, *proprio, *past]


def _copy(imagination: Imagination) -> Imagination:
    """The same with tensors of its own."""
    mine = copy.copy(imagination)
    mine.latents = imagination.latents.clone()
    mine.proprio = None if imagination.proprio is None else imagination.proprio.clone()
    layers = imagination.past.layers
    mine.past = Past(tuple(pair and (pair[0].clone(), pair[1].clone()) for pair in layers))
    return mine
