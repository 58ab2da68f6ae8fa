"""Constraints that belong to the robot: narrower bounds, entries left alone, any projection.

Shapes: B problems, N candidates, T planned steps, A action width, S searched entries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from planners.base import Planner, numbers
from planners.search import Bounds, Search, describe

Projection = Callable[[Tensor], Tensor]
"""Moves candidates `(B, N, T, A)` to allowed ones near them, of the same shape."""

_TOLERANCE = 1e-5  # how far rounding may carry a projected action out, as a share of the range


@dataclass(kw_only=True, eq=False)
class Constrained(Planner):
    """Keeps another planner to narrower bounds, to some of the entries, to any set of actions.

    An entry whose low equals its high is held at that value and not searched. The planner inside
    sees the other entries only: lists in its settings have one number for each of these. Where one
    is around another, the outer one's `project` has the last word, and must keep the inner bounds.

    Args:
        planner: Searches.
        low: Smallest value of each entry, A numbers, besides what `plan` says; None is just that.
        high: Largest value of each entry.
        project: What else is allowed, as a function that moves candidates `(B, N, T, A)` to
            allowed ones near them. All that is evaluated or returned has gone through it. It gets
            whole actions inside the bounds and must leave them there; None allows all of these.

    Raises:
        ValueError: Bounds are no such lists, or leave nothing to search.
    """

    planner: Planner
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    project: Projection | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                numbers(name, getattr(self, name))
        if self.low is None or self.high is None:
            return
        if len(self.low) != len(self.high):
            raise ValueError(
                f"high: wanted {len(self.low)} numbers, as many as low, got {len(self.high)}"
            )
        if not all(low <= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"wanted low <= high everywhere, got {self.low} and {self.high}")

    @property
    def horizon(self) -> int:
        """Number of planned steps T."""
        return self.planner.horizon

    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Let the planner inside search a smaller space."""
        outer = search.space
        search.space = space = self._space(outer)
        try:
            start = space.project(space.extract(start)[:, None])[:, 0]
            mean, std = self.planner._search(search, start)
        finally:
            search.space = outer
        return space.widen(mean), space.widen_std(std)

    def _space(self, outer: Bounds) -> "_Part":
        """Return the part of a space that is searched."""
        low = self._limit("low", self.low, outer.low)
        high = self._limit("high", self.high, outer.high)
        low, high = torch.maximum(low, outer.low), torch.minimum(high, outer.high)
        if not (low <= high).all():
            raise ValueError(
                f"wanted bounds that overlap those of the plan, {outer.low.tolist()} to "
                f"{outer.high.tolist()}, got {self.low} to {self.high}"
            )
        axes = (low < high).nonzero().flatten()
        if len(axes) == 0:
            raise ValueError(f"wanted low < high in some entry, got {self.low} and {self.high}")
        return _Part(low[axes], high[axes], outer, axes, low, self.project)

    def _limit(self, name: str, value: Sequence[float] | None, outer: Tensor) -> Tensor:
        if value is None:
            return outer
        if len(value) != len(outer):
            raise ValueError(f"{name}: wanted A = {len(outer)} numbers, got {len(value)}")
        return outer.new_tensor(list(value))


@dataclass(frozen=True)
class _Part(Bounds):
    """Some entries of a larger space, and what is allowed of it.

    Args:
        low: `(S,)` smallest values.
        high: `(S,)` largest values.
        outer: The larger space.
        axes: `(S,)` which of its entries are searched.
        fixed: `(A,)` the value of those that are not.
        constraint: What is allowed of points of the larger space; None allows all.
    """

    outer: Bounds
    axes: Tensor
    fixed: Tensor
    constraint: Projection | None

    def widen(self, actions: Tensor) -> Tensor:
        """Turn points of this space `(..., S)` into points of the larger one `(..., A)`."""
        whole = self.fixed.expand(*actions.shape[:-1], -1).clone()
        return whole.index_copy(-1, self.axes, actions)

    def widen_std(self, std: Tensor) -> Tensor:
        """Turn a spread into one of the larger space: none where nothing is searched."""
        whole = torch.zeros_like(self.fixed).expand(*std.shape[:-1], -1).clone()
        return whole.index_copy(-1, self.axes, std)

    def embed(self, actions: Tensor) -> Tensor:
        """See `Space.embed`."""
        return self.outer.embed(self.widen(actions))

    def embed_std(self, std: Tensor) -> Tensor:
        """See `Space.embed_std`."""
        return self.outer.embed_std(self.widen_std(std))

    def extract(self, actions: Tensor) -> Tensor:
        """See `Space.extract`."""
        return self.outer.extract(actions)[..., self.axes]

    def project(self, actions: Tensor) -> Tensor:
        """Move candidates `(B, N, T, S)` to allowed ones.

        Raises:
            ValueError: The constraint returned another shape, NaN, or actions outside the bounds.
        """
        actions = self.clip(actions)
        if self.constraint is not None:
            actions = self._checked(self.constraint(self.widen(actions)), actions)
        if type(self.outer) is not Bounds:  # which is but a box, and this one is inside
            actions = self._checked(self.outer.project(self.widen(actions)), actions)
        return actions

    def _checked(self, allowed: Tensor, actions: Tensor) -> Tensor:
        """Return projected actions `(B, N, T, A)` as points of this space."""
        shape = (*actions.shape[:-1], len(self.fixed))
        if not isinstance(allowed, Tensor) or allowed.shape != shape:
            wanted = f"project: wanted actions (B, N, T, A) = {tuple(shape)}"
            raise ValueError(f"{wanted}, got {describe(allowed)}")
        inside = self.widen(self.clip(allowed[..., self.axes].to(actions)))
        slack = _TOLERANCE * (self.outer.high - self.outer.low)
        if not ((allowed - inside).abs() <= slack).all():  # also where it is NaN
            low, high = self.widen(self.low), self.widen(self.high)
            raise ValueError(
                f"project: wanted finite actions within {low.tolist()} and {high.tolist()}, "
                f"got {allowed.amin((0, 1, 2)).tolist()} to {allowed.amax((0, 1, 2)).tolist()}"
            )
        return inside[..., self.axes]
