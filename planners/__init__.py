"""Planners over batched cost functions: torch only, know nothing of models or environments."""

from planners.base import Plan, Planner, shift
from planners.categorical import CategoricalCEM
from planners.cem import CEM, ICEM
from planners.constrained import Constrained
from planners.gradient import Gradient, Polished
from planners.mppi import MPPI
from planners.random_shooting import RandomShooting
from planners.search import CostFunction, IterationRecord

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "CategoricalCEM",
    "Constrained",
    "CostFunction",
    "Gradient",
    "IterationRecord",
    "Plan",
    "Planner",
    "Polished",
    "RandomShooting",
    "shift",
]
