"""Make the full reports of the shipped weights: python -m vjepa_wm.make_reports (make reports).

One HTML file per environment: success on frozen tasks with floors and ceiling, the error budget,
the diagnosis, surprise. Each stage is one of the other verbs, run as a user would run it.
"""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from vjepa_wm.checkpoint import WEIGHTS
from vjepa_wm.cli import verb
from vjepa_wm.errors import SettingError
from vjepa_wm.evaluation.html.report import write_page
from vjepa_wm.evaluation.html.runs import DIAGNOSTICS_FILE, SURPRISE_FILE
from vjepa_wm.evaluation.report import SUMMARY_FILE
from vjepa_wm.evaluation.tasks import load_task_set
from vjepa_wm.make_weights import check_names, check_tasks, write_card
from vjepa_wm.predictor import open_world_model
from vjepa_wm.stages import Runs, check_jobs, run_stage


@verb("make_reports")
def main(cfg: DictConfig) -> None:
    """Measure the shipped world models and write a report of each; a stopped run continues."""
    check_names(cfg.envs)
    check_jobs(cfg.jobs)
    for count in (cfg.episodes, cfg.budget_episodes or 1):
        check_tasks(cfg.envs, count)
    if cfg.pairs < 2:
        raise SettingError(f"pairs: wanted at least 2, got {cfg.pairs}")
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    run_stage(partial(report, cfg), [(env,) for env in cfg.envs], jobs=cfg.jobs, logs=out)


def report(cfg: DictConfig, env: str, *, threads: int, log: Path) -> None:
    """Measure the world model of an environment, and write its report."""
    loaded = open_world_model(env, None)
    # Of these weights alone: others are measured anew
    runs = Runs([f"env={env}"], Path(cfg.out) / env / loaded.digest[:8], threads=threads, log=log)
    policy, decoder = learn(cfg, runs, takes_proprio=loaded.config["integrator"] is not None)
    shown = (f"policy={policy}", f"decoder={decoder}")
    measured = [
        runs.once("evaluate", level, SUMMARY_FILE, *success_options(cfg, level), *shown)
        for level in load_task_set(env).levels
    ]
    if cfg.cards is not None:
        write_card(Path(cfg.cards) / env, loaded.config, measured)
    if cfg.budget_episodes:
        runs.once("evaluate", "budget", SUMMARY_FILE, *budget_options(cfg))
    data = collect(cfg, runs, "diagnosed", episodes=cfg.diagnosed_episodes, seed=cfg.diagnosed_seed)
    diagnosed = (f"data={data}", f"decoder={decoder}", f"windows={cfg.states}", *cfg.more.diagnose)
    runs.once("diagnose", "diagnosis", DIAGNOSTICS_FILE, *diagnosed)
    runs.once("surprise", "surprise", SURPRISE_FILE, f"pairs={cfg.pairs}", *cfg.more.surprise)
    page = Path(cfg.ship_to) / f"{env}.html"
    problems = write_page(page, [runs.folder])
    print("\n".join([f"report: {page}", *(f"left out: {problem}" for problem in problems)]))


def collect(cfg: DictConfig, runs: Runs, name: str, *, episodes: int, seed: int) -> Path:
    """Collect trajectories, or what is missing of them; returns their folder."""
    counts = (f"episodes={episodes}", f"seed={seed}", "workers=1")
    return runs.run("collect", name, *counts, *cfg.more.collect)


def learn(cfg: DictConfig, runs: Runs, *, takes_proprio: bool) -> tuple[Path, Path]:
    """Train what is shown beside the agent: behaviour cloning, and a decoder for pictures."""
    data = collect(cfg, runs, "training", episodes=cfg.training_episodes, seed=0)
    options = (f"data={data}", f"cache={runs.folder / 'latents'}")
    options += (f"trainer.minutes={float(cfg.learning_minutes)}",)
    cloned = (f"proprio={str(takes_proprio).lower()}", "evaluation_episodes=0", *cfg.more.train_bc)
    return (
        runs.once("train_bc", "policy", WEIGHTS, *options, *cloned),
        runs.once("train_decoder", "decoder", WEIGHTS, *options, *cfg.more.train_decoder),
    )


def success_options(cfg: DictConfig, level: str) -> tuple[str, ...]:
    """Options of the evaluation of a level: the agent beside floor and ceiling."""
    return (
        f"level={level}",
        "agent=all",
        f"episodes={cfg.episodes}",
        f"pictures={cfg.pictures}",
        *cfg.more.evaluate,
    )


def budget_options(cfg: DictConfig) -> tuple[str, ...]:
    """Options of the error budget, on near goals."""
    return (
        "agent=[mpc,true_dynamics,simulator]",
        "simulator_planner=${planner}",
        f"episodes={cfg.budget_episodes}",
        "pictures=0",
        *cfg.more.evaluate,
    )


if __name__ == "__main__":
    main()
