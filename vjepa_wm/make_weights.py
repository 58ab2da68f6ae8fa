"""Make the shipped weights again, from nothing: python -m vjepa_wm.make_weights (make weights).

Each stage is one of the other verbs, run as a user would run it; collections and trainings that are
done are skipped, measurements are made again. World models are trained and measured side by side,
one per core.
"""

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vjepa_wm.checkpoint import CONFIG, WEIGHTS, load_checkpoint
from vjepa_wm.cli import run_verb, verb
from vjepa_wm.encoders.registry import shipped_folder
from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.evaluation.card import encoder_card, world_model_card
from vjepa_wm.evaluation.report import SUMMARY_FILE
from vjepa_wm.evaluation.tasks import load_task_set
from vjepa_wm.files import atomic_path, read_json, write_json, write_text
from vjepa_wm.loading import SHIPPED
from vjepa_wm.stages import check_jobs, run_stage

EVALUATION = "evaluation.json"


@verb("make_weights")
def main(cfg: DictConfig) -> None:
    """Collect, pretrain, train, measure and ship; a run that was stopped continues."""
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    check_environments(cfg)
    for env in cfg.minutes:
        run_verb("collect", f"env={env}", f"episodes={cfg.episodes[env]}", *cfg.more.collect)
    if cfg.pretrain_steps is not None:
        pretrain(cfg)
    tasks = [(env,) for env in cfg.minutes]
    run_stage(partial(train, cfg), tasks, jobs=cfg.jobs, logs=out)
    print(
        f"# all but measuring: {(time.perf_counter() - began) / 60:.0f} minutes, "
        f"{children_cpu_minutes():.0f} CPU-minutes in this run",
        flush=True,
    )
    if not cfg.evaluation_episodes:
        return
    tasks = [(env, level) for env in cfg.minutes for level in load_task_set(env).levels]
    run_stage(partial(measure, cfg), tasks, jobs=cfg.jobs, logs=out)
    write_cards(cfg)


def check_environments(cfg: DictConfig) -> None:
    """Refuse a misspelt environment or an impossible number before hours are spent.

    Raises:
        UnknownNameError: Naming the nearest.
        SettingError: `jobs` is less than 1, or `corpus_hours` negative.
        DataError: There are not as many tasks.
    """
    check_names((*cfg.minutes, *cfg.episodes, *cfg.proprio))
    check_jobs(cfg.jobs)
    if cfg.corpus_hours < 0:
        raise SettingError(f"corpus_hours: wanted 0 or more, got {cfg.corpus_hours}")
    if cfg.evaluation_episodes:
        check_tasks(cfg.minutes, cfg.evaluation_episodes)


def check_names(envs: Iterable[str]) -> None:
    """Refuse what is no environment with shipped weights.

    Raises:
        UnknownNameError: Naming the nearest.
    """
    for env in envs:
        if env not in SHIPPED:
            raise UnknownNameError("environment", str(env), SHIPPED)


def check_tasks(envs: Iterable[str], count: int) -> None:
    """Refuse more frozen tasks per level than there are.

    Raises:
        DataError: Naming how many there are.
    """
    for env in envs:
        tasks = load_task_set(env)
        for level in tasks.levels:
            tasks.select(level, count)


def pretrain(cfg: DictConfig) -> None:
    """Pretrain the encoder on the trajectories of every environment and the corpus, and ship it."""
    names = list(cfg.minutes)
    if cfg.corpus_hours:
        run_verb("collect", "corpus=play", f"hours={cfg.corpus_hours}", *cfg.more.corpus)
        names.append("play")
    run_verb(
        "pretrain",
        f"data=[{','.join(f'data/{name}' for name in names)}]",
        f"out={encoder_run(cfg)}",
        f"trainer.steps={cfg.pretrain_steps}",
        f"device={cfg.device}",
        *cfg.more.pretrain,
    )
    ship(encoder_run(cfg), cfg, "compact")


def train(cfg: DictConfig, env: str, *, threads: int, log: Path) -> None:
    """Train the world model of an environment, and ship it."""
    out = Path(cfg.out) / env
    run_verb(
        "train_ac",
        f"env={env}",
        f"proprio={env in cfg.proprio}",
        f"encoder.checkpoint={'null' if cfg.pretrain_steps is None else encoder_run(cfg)}",
        f"trainer.minutes={float(cfg.minutes[env])}",
        f"metric_trainer.minutes={float(cfg.metric_minutes)}",
        "evaluation_episodes=0",
        f"device={cfg.device}",
        f"out={out}",
        *cfg.more.train_ac,
        threads=threads,
        log=log,
    )
    ship(out, cfg, env)


def measure(cfg: DictConfig, env: str, level: str, *, threads: int, log: Path) -> None:
    """Measure a shipped world model at one level of difficulty, beside floor and ceiling."""
    run_verb(
        "evaluate",
        f"env={env}",
        f"model={target(cfg, env)}",
        f"level={level}",
        "agent=all",
        f"episodes={cfg.evaluation_episodes}",
        f"out={evaluation_run(cfg, env, level)}",
        *cfg.more.evaluate,
        threads=threads,
        log=log,
    )


def children_cpu_minutes() -> float:
    """CPU time of all verbs run so far, over all their cores (0 where the system counts none)."""
    times = os.times()
    return (times.children_user + times.children_system) / 60


def encoder_run(cfg: DictConfig) -> Path:
    """Folder of the encoder's pretraining."""
    return Path(cfg.out) / "compact"


def evaluation_run(cfg: DictConfig, env: str, level: str) -> Path:
    """Folder of a measurement."""
    return Path(cfg.out) / "evaluation" / f"{env}_{level}"


def target(cfg: DictConfig, name: str) -> Path:
    """Folder a checkpoint is shipped in."""
    return shipped_folder(name) if cfg.ship_to is None else Path(cfg.ship_to) / name


def ship(run_folder: Path, cfg: DictConfig, name: str) -> None:
    """Copy a checkpoint to where it is shipped, with the shipped encoder in place of a path."""
    folder = target(cfg, name)
    config = dict(load_checkpoint(run_folder).config)
    if config["kind"] == "world_model":
        # The package's own encoder is found by name, any other only by its folder.
        is_own = cfg.ship_to is None or cfg.pretrain_steps is None
        checkpoint = None if is_own else str(target(cfg, "compact"))
        config["encoder"] = {**config["encoder"], "checkpoint": checkpoint}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as path:
        shutil.copyfile(run_folder / WEIGHTS, path)
    write_json(folder / CONFIG, config)


def write_cards(cfg: DictConfig) -> None:
    """Write a model card beside every shipped checkpoint."""
    if cfg.pretrain_steps is not None:
        folder = target(cfg, "compact")
        write_text(folder / "README.md", encoder_card(read_json(folder / CONFIG)))
    for env in cfg.minutes:
        folder = target(cfg, env)
        runs = [evaluation_run(cfg, env, level) for level in load_task_set(env).levels]
        write_card(folder, read_json(folder / CONFIG), runs)


def write_card(folder: Path, config: Mapping[str, Any], runs: Iterable[Path]) -> None:
    """Write the card of a world model, and the measurements in it as numbers.

    Args:
        folder: Where to.
        config: Of its checkpoint.
        runs: Folders of its evaluations, one per level.
    """
    summaries = [read_json(run / SUMMARY_FILE) for run in runs]
    write_json(folder / EVALUATION, summaries)
    write_text(folder / "README.md", world_model_card(config, summaries))


if __name__ == "__main__":
    main()
