"""Planners over batched cost functions: torch only, know nothing of models or environments."""

from planners.base import CostFunction, IterationRecord, Plan, Planner, shift
from planners.cem import CEM, ICEM
from planners.random_shooting import RandomShooting

__all__ = [
    "CEM",
    "ICEM",
    "CostFunction",
    "IterationRecord",
    "Plan",
    "Planner",
    "RandomShooting",
    "shift",
]
