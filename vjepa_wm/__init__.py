"""World models on frozen V-JEPA encoders, and planning with them.

Names are imported when first used, so that data collection never loads torch.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "ActionPredictor": "vjepa_wm.predictor",
    "ActionSpec": "vjepa_wm.world_model",
    "GoalCost": "vjepa_wm.costs",
    "MPCAgent": "vjepa_wm.agent",
    "TemporalMetric": "vjepa_wm.metric",
    "WorldModel": "vjepa_wm.world_model",
    "load_decoder": "vjepa_wm.decoder",
    "load_encoder": "vjepa_wm.encoders.registry",
    "load_mask_predictor": "vjepa_wm.pretraining.published",
    "load_predictor": "vjepa_wm.predictor",
    "load_world_model": "vjepa_wm.loading",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vjepa_wm' has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
