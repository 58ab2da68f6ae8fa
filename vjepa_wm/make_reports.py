"""Make the full reports of the shipped weights: python -m vjepa_wm.make_reports (make reports).

One HTML file per environment: success on frozen tasks with floor and ceiling, the error budget,
the diagnosis, surprise. Each stage is one of the other verbs, run as a user would run it.
"""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from vjepa_wm.cli import run_verb, verb
from vjepa_wm.diagnose import RESULTS_FILE
from vjepa_wm.errors import UnknownNameError
from vjepa_wm.evaluation.html.report import write_page
from vjepa_wm.evaluation.html.runs import SURPRISE_FILE
from vjepa_wm.evaluation.report import SUMMARY_FILE
from vjepa_wm.loading import SHIPPED
from vjepa_wm.make_weights import levels
from vjepa_wm.predictor import open_world_model
from vjepa_wm.stages import check_jobs, run_stage


@verb("make_reports")
def main(cfg: DictConfig) -> None:
    """Measure the shipped world models and write a report of each; a stopped run continues."""
    for env in cfg.envs:
        if env not in SHIPPED:
            raise UnknownNameError("environment", str(env), SHIPPED)
    check_jobs(cfg.jobs)
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    run_stage(partial(report, cfg), [(env,) for env in cfg.envs], jobs=cfg.jobs, logs=out)


def report(cfg: DictConfig, env: str, *, threads: int, log: Path) -> None:
    """Measure the world model of an environment in every way, and write its report."""
    # Of these weights alone: others are measured anew
    folder = Path(cfg.out) / env / open_world_model(env, None).digest[:8]
    once = partial(run_once, f"env={env}", threads=threads, log=log)
    for level in levels(env):
        once("evaluate", folder / level, SUMMARY_FILE, *success_options(cfg, level))
    if cfg.budget_episodes:
        once("evaluate", folder / "budget", SUMMARY_FILE, *budget_options(cfg))
    data = folder / "data"
    # Collection itself knows what is done
    run_verb(
        "collect",
        f"env={env}",
        f"episodes={cfg.diagnosed_episodes}",
        f"seed={cfg.diagnosed_seed}",
        "workers=1",
        f"out={data}",
        *cfg.more.collect,
        threads=threads,
        log=log,
    )
    diagnosed = (f"data={data}", f"windows={cfg.states}", *cfg.more.diagnose)
    once("diagnose", folder / "diagnosis", RESULTS_FILE, *diagnosed)
    surprised = (f"pairs={cfg.pairs}", *cfg.more.surprise)
    once("surprise", folder / "surprise", SURPRISE_FILE, *surprised)
    page = Path(cfg.ship_to) / f"{env}.html"
    problems = write_page(page, [folder])
    print("\n".join([f"report: {page}", *(f"left out: {problem}" for problem in problems)]))


def run_once(
    env: str, name: str, out: Path, result: str, *options: str, threads: int, log: Path
) -> None:
    """Run a verb for an environment, unless its result is there already."""
    if not (out / result).exists():
        run_verb(name, env, *options, f"out={out}", threads=threads, log=log)


def success_options(cfg: DictConfig, level: str) -> tuple[str, ...]:
    """Options of the evaluation of a level: the agent beside floor and ceiling."""
    return (f"level={level}", "agent=all", f"episodes={cfg.episodes}", *cfg.more.evaluate)


def budget_options(cfg: DictConfig) -> tuple[str, ...]:
    """Options of the error budget, on near goals."""
    return (
        "agent=[mpc,true_dynamics,simulator]",
        "simulator_planner=${planner}",
        f"episodes={cfg.budget_episodes}",
        *cfg.budget_planner,
        *cfg.more.evaluate,
    )


if __name__ == "__main__":
    main()
