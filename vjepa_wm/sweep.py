"""Measure success against budget: python -m vjepa_wm.sweep env=push.

The smallest run: python -m vjepa_wm.sweep "points=['planner.num_samples=8,16']" episodes=4
"""

import itertools
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from vjepa_wm.cli import check_overrides, env_options, run_verb, verb
from vjepa_wm.errors import SettingError
from vjepa_wm.evaluation.html.report import REPORT_FILE, write_page
from vjepa_wm.evaluation.sweeps import read_point, table, verdicts
from vjepa_wm.files import read_json, write_json
from vjepa_wm.predictor import open_world_model
from vjepa_wm.stages import check_jobs, run_stage

POINT_FILE = "point.json"  # what a folder was measured with; written when it is done
OWN = {"agent", "env", "episodes", "level", "model", "out", "tasks"}  # the sweep's, not a point's


@verb("sweep")
def main(cfg: DictConfig) -> None:
    """Measure how success depends on the planner and its budget; a stopped sweep continues.

    Example: python -m vjepa_wm.sweep env=reacher level=near episodes=50

    Every point is a run of evaluate with agent=mpc. At the end: success beside the frames imagined
    per plan and the seconds per action, the smallest budget that keeps the best success, and how
    many frames the other planners need for the success of the first. Choose settings on tuning
    tasks; what is reported should be measured again on frozen ones, with evaluate.
    """
    check_jobs(cfg.jobs)
    model = open_world_model(cfg.model, None).digest
    points = {
        name: asked(cfg, options, model=model)
        for name, options in expand(cfg.points, common=cfg.common).items()
    }
    out = Path(cfg.out)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    todo = [name for name, settings in points.items() if not is_done(out / name, settings)]
    print(f"{len(points)} points, {len(points) - len(todo)} of them measured before", flush=True)
    began, left = time.perf_counter(), set(todo)

    def measure(name: str, *, threads: int, log: Path) -> None:
        options = [*points[name]["options"], f"out={out / name}", "pictures=0"]
        (out / name / POINT_FILE).unlink(missing_ok=True)  # of what will be written over
        run_verb("evaluate", *options, threads=threads, log=log)
        write_json(out / name / POINT_FILE, points[name])
        left.discard(name)
        done = len(todo) - len(left)
        minutes = (time.perf_counter() - began) / 60 / done * len(left)
        found = read_point(out / name)
        print(f"{done}/{len(todo)} {found}; about {minutes:.0f} minutes left", flush=True)

    run_stage(measure, [(name,) for name in todo], jobs=cfg.jobs, logs=out / "logs")
    found = [read_point(out / name) for name in points]
    print(table(found))
    print("\n".join(verdicts(found, tolerance=cfg.tolerance / 100)))
    write_page(out / REPORT_FILE, [out / name for name in points])
    print(f"every point: {out}; to look at: {out / REPORT_FILE}")


def expand(lines: Sequence[str], *, common: str) -> dict[str, list[str]]:
    """Turn lines of options with several values into points: name -> options of evaluate.

    Raises:
        SettingError: There is no point, or a line sets what the sweep itself sets.
        VjepaWmError: An option does not exist; the nearest is named.
    """
    points, shared = {}, shlex.split(common)
    check_overrides("evaluate", shared)
    for line in lines:
        words = shlex.split(line)
        check_overrides("evaluate", [*words, *shared], is_multirun=True)
        values = []
        for override in OverridesParser.create().parse_overrides([*words, *shared]):
            if override.key_or_group in OWN:
                raise SettingError(
                    f"points: {override.key_or_group} is an option of the sweep itself, the same "
                    f"for all points; got it in {f'{line} {common}'!r}"
                )
            values.append(choices(override))
        for options in itertools.product(*values):
            points[name_of(options[: len(words)])] = list(options)
    if not points:
        raise SettingError("points: wanted at least one line of options of evaluate, got none")
    return points


def choices(override: Override) -> list[str]:
    """Return an option once for each of its values."""
    if not override.is_sweep_override():
        return [override.input_line]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def name_of(options: Sequence[str]) -> str:
    """Name a point, and its folder: planner-icem_num_samples-16."""
    short = [option.removeprefix("planner.") for option in options]
    return re.sub(r"[^\w.-]+", "-", "_".join(short)) or "default"


def asked(cfg: DictConfig, options: Sequence[str], *, model: str) -> dict[str, list[str] | str]:
    """Return all that a point is measured with, as evaluate takes it, and the model's digest."""
    own = {"level": cfg.level, "tasks": cfg.tasks, "episodes": cfg.episodes}
    own |= {"model": cfg.model, "agent": "mpc"}
    fixed = [*env_options(cfg.env), *(f"{name}={value}" for name, value in own.items())]
    return {"options": [*fixed, *options], "model": model}


def is_done(folder: Path, settings: Mapping[str, object]) -> bool:
    """Tell whether a point was measured with just this."""
    path = folder / POINT_FILE
    return path.is_file() and read_json(path) == settings


if __name__ == "__main__":
    main()
