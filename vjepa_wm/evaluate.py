"""Measure how often goals are reached: python -m vjepa_wm.evaluate env=push agent=all.

The smallest run, which needs no model: python -m vjepa_wm.evaluate agent=random episodes=10
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from gymnasium import spaces
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vjepa_wm.agent import MPCAgent
from vjepa_wm.benchmarks.figures import device_line
from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.cli import progress, verb
from vjepa_wm.encoders.registry import shipped_folder
from vjepa_wm.errors import DataError, UnknownNameError, VjepaWmError
from vjepa_wm.evaluation.agents import RandomAgent, SimulatorAgent
from vjepa_wm.evaluation.episodes import Agent, Episode, EpisodeRunner
from vjepa_wm.evaluation.html.report import REPORT_FILE, write_page
from vjepa_wm.evaluation.pictures import Reel, write_pictures
from vjepa_wm.evaluation.report import (
    EPISODES_FILE,
    Row,
    summarise,
    table,
    warnings,
    write_report,
)
from vjepa_wm.evaluation.tasks import TUNING_SEED, Task, TaskSet, draw_tasks, load_task_set
from vjepa_wm.files import digest
from vjepa_wm.loading import SHIPPED, load_world_model
from vjepa_wm.world_model import ActionSpec

logger = logging.getLogger(__name__)

AGENTS = ("random", "mpc", "simulator")


@verb("evaluate")
def main(cfg: DictConfig) -> None:
    """Measure how often an agent reaches goal images, beside random actions and the simulator.

    Example: python -m vjepa_wm.evaluate env=push agent=all episodes=100

    The simulator row is privileged: it plans in the true simulator with the true distance. It
    has a planner of its own; planner@simulator_planner=cem gives it the one of mpc.
    """
    names = chosen_agents(cfg.agent)
    tasks, tasks_digest = chosen_tasks(cfg)
    episodes: dict[str, list[Episode]] = {}
    rows: list[Row] = []
    reels = {name: Reel(cfg.pictures) for name in names}
    runner = EpisodeRunner(
        cfg.env.id, num_envs=min(cfg.batch, len(tasks)), image_size=cfg.env.image_size
    )
    with closing(runner):
        # All agents first: a missing model should not be found out after the random row.
        agents = {name: build_agent(name, cfg, runner) for name in names}
        for name, agent in agents.items():
            began = time.perf_counter()
            episodes[name] = runner.run(
                agent,
                tasks,
                max_steps=cfg.max_steps,
                desc=name,
                progress=progress,
                reel=reels[name],
            )
            seconds = time.perf_counter() - began
            rows.append(summarise(name, episodes[name], seconds=seconds))
        criteria = dict(runner.envs[0].unwrapped.criteria)
    about = describe(cfg, names, tasks_digest) | {"criteria": criteria, "machine": device_line()}
    write_report(cfg.out, episodes, rows, about=about)
    write_pictures(cfg.out, reels, episodes_digest=digest(Path(cfg.out) / EPISODES_FILE))
    write_page(Path(cfg.out) / REPORT_FILE, [Path(cfg.out)])
    show(cfg, rows)


def chosen_agents(name: str) -> Sequence[str]:
    """Return the agents to evaluate, from the floor up."""
    if name not in (*AGENTS, "all"):
        raise UnknownNameError("agent", str(name), (*AGENTS, "all"))
    return AGENTS if name == "all" else (name,)


def chosen_tasks(cfg: DictConfig) -> tuple[list[Task], str]:
    """Return the tasks, and the digest of the file they are from or ""."""
    if cfg.tasks not in ("frozen", "tuning") and not str(cfg.tasks).endswith(".json"):
        raise UnknownNameError("list of tasks", str(cfg.tasks), ("frozen", "tuning", "FILE.json"))
    if cfg.tasks == "tuning":
        if cfg.episodes < 1:
            raise DataError(f"episodes: wanted at least 1, got {cfg.episodes}")
        drawn = draw_tasks(
            cfg.env.id, cfg.level, cfg.episodes, first_seed=TUNING_SEED, progress=progress
        )
        return drawn, ""
    found: TaskSet = load_task_set(cfg.env.name if cfg.tasks == "frozen" else cfg.tasks)
    return found.select(cfg.level, cfg.episodes), found.digest


def build_agent(name: str, cfg: DictConfig, runner: EpisodeRunner) -> Agent:
    """Build an agent by name.

    Raises:
        VjepaWmError: If options contradict each other, or the model is not for this environment.
    """
    space = runner.envs[0].action_space
    if name == "random":
        return RandomAgent(space.low, space.high, seed=cfg.seed)
    if name == "mpc":
        return build_mpc(cfg, space)
    with told_of(name):
        return build_simulator(cfg, runner)


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Turn what an agent's parts say of their options into an error of one line."""
    try:
        yield
    except (ValueError, InstantiationException) as error:
        raise VjepaWmError(f"{name}: {error}") from error


def build_mpc(cfg: DictConfig, space: spaces.Box) -> MPCAgent:
    """Build the agent that plans in a world model, for an environment's action space.

    Raises:
        VjepaWmError: If options contradict each other, or the model is not for this environment.
    """
    world_model = load_world_model(cfg.model, device=cfg.device)
    check_actions(world_model.action_spec, cfg, space)
    with told_of("mpc"):
        return MPCAgent(
            world_model,
            instantiate(cfg.planner),
            instantiate(cfg.cost, metric=world_model.metric),
            context_len=cfg.context_len,
            replan_every=cfg.replan_every,
            seed=cfg.seed,
            deadline_ms=cfg.deadline_ms,
        )


def check_actions(spec: ActionSpec, cfg: DictConfig, space: spaces.Box) -> None:
    """Refuse a model trained for other actions than the environment has."""
    wanted = (tuple(space.low.tolist()), tuple(space.high.tolist()), cfg.env.frame_skip)
    found = (tuple(spec.low), tuple(spec.high), spec.frame_skip)
    if found != wanted:
        raise DataError(
            f"model {cfg.model} was trained for other actions than env={cfg.env.name} has: "
            f"low, high, frame_skip: wanted {wanted}, got {found}"
        )


def build_simulator(cfg: DictConfig, runner: EpisodeRunner) -> SimulatorAgent:
    """Build the agent that plans in the environments themselves."""
    return SimulatorAgent(
        runner.envs,
        instantiate(cfg.simulator_planner),
        replan_every=cfg.replan_every,
        frame_skip=cfg.env.frame_skip,
        seed=cfg.seed,
    )


def describe(cfg: DictConfig, names: Sequence[str], tasks_digest: str) -> dict[str, object]:
    """Return what the figures are of, for the summary."""
    digests = {"tasks": tasks_digest}
    if "mpc" in names:
        model = str(cfg.model)
        folder = shipped_folder(model) if model in SHIPPED else Path(model)
        digests["model"] = load_checkpoint(folder).digest
    config = OmegaConf.to_container(cfg, resolve=True)
    del config["out"]  # where a run was written is not what it measured; summaries are shipped
    return {"env": cfg.env.name, "level": cfg.level, "digests": digests, "config": config}


def show(cfg: DictConfig, rows: Sequence[Row]) -> None:
    """Print the table and what makes it doubtful."""
    print(
        f"{cfg.env.name}, {cfg.level} goals, {cfg.tasks} tasks, at most {cfg.max_steps} steps; "
        "distances are medians, steps those of successes"
    )
    print(table(rows))
    for warning in warnings(rows):
        logger.warning("warning: %s", warning)
    print(f"every episode and the settings: {cfg.out}; to look at: {Path(cfg.out) / REPORT_FILE}")


if __name__ == "__main__":
    main()
