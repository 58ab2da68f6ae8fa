"""The arrows of the architecture: which part may import which; the table below is the rule.

A new module of `vjepa_wm` goes into the table with what it may import, or is a verb (has
`if __name__ == "__main__"`). A part that does not exist yet is no failure.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# What anything in vjepa_wm may import; the foundation itself imports only foundation.
FOUNDATION = {
    "bounds",
    "checkpoint",
    "distributed",
    "downloads",
    "errors",
    "evaluation.statistics",
    "files",
    "gpu_memory",
    "precision",
    "progress",
    "provenance",
}
# Part of vjepa_wm -> what else it may import: parts of vjepa_wm, or the package "planners".
# Importing a part includes all below it; the longest name that fits a module is its part.
ARROWS: dict[str, set[str]] = {
    "action_units": set(),
    "nn": set(),
    "data": set(),
    "metric": set(),
    "encoders": {"nn", "observations"},
    "decoder": {"nn", "encoders"},
    "poses": set(),
    "proprio": {"action_units"},
    "frame_predictor": {"nn"},
    "token_predictor": {"nn", "encoders", "frame_predictor"},
    "predictor": {
        "action_units",
        "encoders",
        "frame_predictor",
        "nn",
        "token_predictor",
        "vjepa2_ac",
    },
    "vjepa2_ac": {"encoders", "token_predictor"},
    "pretraining": {"nn", "encoders", "data"},
    "threads": set(),
    "world_model": {
        "costs",
        "encoders",
        "frame_predictor",
        "metric",
        "observations",
        "predictor",
        "threads",
    },
    "loading": {
        "costs",
        "encoders",
        "metric",
        "poses",
        "predictor",
        "proprio",
        "vjepa2_ac",
        "world_model",
    },
    "costs": {"metric"},
    "observations": set(),
    "agent": {
        "agent_memory",
        "agent_signatures",
        "cuda_graphs",
        "observations",
        "world_model",
        "costs",
        "planners",
    },
    "agent_memory": set(),
    "agent_signatures": {"agent_memory", "observations"},
    "cuda_graphs": {"nn", "world_model"},
    "behaviour_cloning": {"action_units", "encoders", "observations", "proprio", "world_model"},
    "training": {
        "data",
        "metric",
        "decoder",
        "encoders",
        "predictor",
        "vjepa2_ac",
        "world_model",
    },
    "evaluation": {
        "agent",
        "costs",
        "data",
        "decoder",
        "encoders",
        "loading",
        "metric",
        "planners",
        "predictor",
        "world_model",
    },
    "evaluation.html": {"evaluation"},
    "probing": {"nn", "encoders", "data", "evaluation"},
    "benchmarks": {
        "agent",
        "costs",
        "cuda_graphs",
        "data",
        "encoders",
        "frame_predictor",
        "loading",
        "nn",
        "planners",
        "poses",
        "predictor",
        "token_predictor",
        "training",
        "vjepa2_ac",
        "world_model",
    },
    "cli": set(),
    "stages": {"cli", "data"},
}
# Third-party packages a part may import at all. Verbs and cli may use Hydra besides LIBRARY.
LIBRARY = {
    "PIL",
    "gymnasium",
    "huggingface_hub",
    "imageio",
    "numpy",
    "safetensors",
    "torch",
    "tqdm",
}
HYDRA = {"hydra", "omegaconf"}
THIRD_PARTY = {
    "envs": {"gymnasium", "mujoco", "numpy"},
    "planners": {"torch"},
    "vjepa_wm.nn": {"torch"},
    "vjepa_wm.evaluation.statistics": {"numpy"},
    "vjepa_wm.cli": LIBRARY | HYDRA,
}
# Installed by an extra or not at all: imported only inside the function that needs them.
OPTIONAL = {
    "timm",
    "torchvision",
    "transformers",
    "tensorboard",
    "wandb",
    "matplotlib",
    "h5py",
    "av",
    "pip",
}
# Importing these must not load torch: worker processes start with them.
TORCH_FREE = ["envs", "vjepa_wm.data.trajectories", "vjepa_wm.data.collection", "vjepa_wm.collect"]


class Import(NamedTuple):
    """One import statement's target."""

    target: str
    line: int
    at_start: bool  # runs when the module is imported


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def all_modules() -> dict[str, Path]:
    files = [p for top in ("envs", "planners", "vjepa_wm") for p in (ROOT / top).rglob("*.py")]
    return {module_name(path): path for path in sorted(files)}


MODULES = all_modules()


def is_verb(name: str) -> bool:
    """Tell whether a module is made to be run."""
    return '\nif __name__ == "__main__":' in MODULES[name].read_text(encoding="utf-8")


@cache
def imports_of(name: str) -> list[Import]:
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return list(walk(tree, package, at_start=True))


def walk(node: ast.AST, package: str, *, at_start: bool) -> Iterator[Import]:
    """Find import statements, telling those that run on import from the rest."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in targets(child, package):
                yield Import(target, child.lineno, at_start)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from walk(child, package, at_start=at_start and not is_function and not for_types)


def targets(statement: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Return the modules a statement imports, with full names."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    base = statement.module or ""
    if statement.level:
        above = package.split(".")[: len(package.split(".")) - statement.level + 1]
        base = ".".join([*above, base] if base else above)
    inner = [f"{base}.{alias.name}" for alias in statement.names]
    return [name if name in MODULES else base for name in inner]


def within(name: str, parts: set[str]) -> bool:
    """Tell whether a dotted name is one of the parts or lies below one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def part_of(name: str) -> str | None:
    """Return the part of vjepa_wm a module belongs to; None when the table has none."""
    inner = name.removeprefix("vjepa_wm.")
    fitting = [part for part in {*ARROWS, *FOUNDATION} if within(inner, {part})]
    return max(fitting, key=len, default=None)


def allowed_inside(name: str, target: str) -> bool:
    """Tell whether a library module of vjepa_wm may import a module of this repository."""
    part = part_of(name)
    inner = target.removeprefix("vjepa_wm.")
    if target == "vjepa_wm" or within(inner, FOUNDATION):
        return True
    if part in FOUNDATION:
        return False
    return within(inner, {part} | ARROWS[part])


def allowed(name: str, target: str) -> bool:
    """Tell whether the tables let a module import another of this repository."""
    top, target_top = name.partition(".")[0], target.partition(".")[0]
    if top != "vjepa_wm":
        return target_top == top
    if is_verb(name):
        return True
    if target in MODULES and is_verb(target):
        return False
    if name == "vjepa_wm":  # the public face gathers names, from anywhere but verbs
        return target_top == "vjepa_wm"
    return allowed_inside(name, target)


def third_party_of(name: str) -> set[str]:
    """Return the third-party packages a module may import."""
    fitting = [prefix for prefix in THIRD_PARTY if within(name, {prefix})]
    if fitting:
        return THIRD_PARTY[max(fitting, key=len)]
    return LIBRARY | HYDRA if is_verb(name) else LIBRARY


def is_ours(target: str) -> bool:
    return target.partition(".")[0] in {"vjepa_wm", "envs", "planners", "configs", "demos", "tests"}


def where(name: str, found: Import) -> str:
    return f"{MODULES[name].relative_to(ROOT)}:{found.line} imports {found.target}"


@pytest.mark.parametrize("name", MODULES)
def test_arrows_point_the_right_way(name: str) -> None:
    ours = [found for found in imports_of(name) if is_ours(found.target)]
    is_library = name.startswith("vjepa_wm.") and not is_verb(name)
    assert not is_library or part_of(name), f"{name} is in no part: add it to ARROWS"
    wrong = [where(name, found) for found in ours if not allowed(name, found.target)]
    assert not wrong, f"not in the table of {__file__}: {wrong}"


@pytest.mark.parametrize("name", MODULES)
def test_third_party_packages_are_those_of_the_part(name: str) -> None:
    wrong = []
    for found in imports_of(name):
        top = found.target.partition(".")[0]
        lazy = top in OPTIONAL and not found.at_start and name.startswith("vjepa_wm")
        if top in sys.stdlib_module_names or is_ours(found.target) or lazy:
            continue
        if top not in third_party_of(name):
            wrong.append(where(name, found))
    assert not wrong, f"wanted only {sorted(third_party_of(name))}: {wrong}"


def loaded_by(name: str) -> dict[str, str]:
    """Return the modules that importing this one loads, each with the module that asks for it."""
    loaded: dict[str, str] = {}
    waiting = [(name, name)]
    while waiting:
        module, asked_by = waiting.pop()
        if module in loaded:
            continue
        loaded[module] = asked_by
        parent = module.rpartition(".")[0]
        if parent in MODULES:  # a package's __init__ runs first
            waiting.append((parent, module))
        if module in MODULES:
            waiting += [(found.target, module) for found in imports_of(module) if found.at_start]
    return loaded


@pytest.mark.parametrize("name", [name for name in TORCH_FREE if name in MODULES])
def test_importing_does_not_load_torch(name: str) -> None:
    culprits = [
        f"{asked_by} imports {module}"
        for module, asked_by in loaded_by(name).items()
        if module.partition(".")[0] == "torch"
    ]
    assert not culprits


def test_the_rules_catch_what_they_are_for() -> None:
    source = (
        "import torch.nn\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import mujoco\n"
        "def f():\n    from . import files\n    import timm\n"
        "try:\n    from .nn import blocks\nexcept ImportError:\n    pass\n"
    )
    found = list(walk(ast.parse(source), "vjepa_wm", at_start=True))
    assert [(item.target, item.at_start) for item in found] == [
        ("torch.nn", True),
        ("typing", True),
        ("mujoco", False),
        ("vjepa_wm.files", False),
        ("timm", False),
        ("vjepa_wm.nn.blocks", True),
    ]
    assert not allowed_inside("vjepa_wm.nn.blocks", "vjepa_wm.encoders.vit")
    assert not allowed_inside("vjepa_wm.errors", "vjepa_wm.nn")
    assert not allowed_inside("vjepa_wm.agent", "envs")
    assert allowed_inside("vjepa_wm.agent", "planners.cem")
    assert part_of("vjepa_wm.evaluation.statistics") == "evaluation.statistics"
    assert part_of("vjepa_wm.nonsense") is None
    assert not allowed("planners.cem", "vjepa_wm.errors")
    assert not allowed("envs.base", "planners")
