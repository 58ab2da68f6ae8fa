"""Measure how often goals are reached: python -m vjepa_wm.evaluate env=push agent=all.

The smallest run, which needs no model: python -m vjepa_wm.evaluate agent=random episodes=10
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from gymnasium import spaces
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from vjepa_wm.agent import MPCAgent
from vjepa_wm.behaviour_cloning import (
    BehaviourCloningAgent,
    load_behaviour_cloning,
    open_behaviour_cloning,
)
from vjepa_wm.benchmarks.figures import device_line
from vjepa_wm.bounds import same_actions
from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.cli import config_of, env_options, progress, reason_of, run_verb, verb
from vjepa_wm.decoder import Decoder, load_decoder
from vjepa_wm.encoders.registry import shipped_folder
from vjepa_wm.errors import DataError, UnknownNameError, VjepaWmError
from vjepa_wm.evaluation.agents import RandomAgent, SimulatorAgent
from vjepa_wm.evaluation.budget import ROWS, ErrorBudget, budget_lines, error_budget
from vjepa_wm.evaluation.card import planner_in_words
from vjepa_wm.evaluation.episodes import Agent, Episode, EpisodeRunner
from vjepa_wm.evaluation.html.report import REPORT_FILE, write_page
from vjepa_wm.evaluation.reels import Reel, write_pictures
from vjepa_wm.evaluation.report import (
    EPISODES_FILE,
    Row,
    summarise,
    table,
    warnings,
    write_report,
)
from vjepa_wm.evaluation.tasks import (
    TUNING_SEED,
    Task,
    TaskSet,
    draw_tasks,
    has_frozen_tasks,
    load_task_set,
)
from vjepa_wm.evaluation.true_dynamics import TrueDynamicsAgent
from vjepa_wm.files import digest
from vjepa_wm.loading import SHIPPED, load_world_model, warn_of_another_environment
from vjepa_wm.world_model import ActionSpec

logger = logging.getLogger(__name__)

AGENTS = ("random", "bc", "mpc", "true_dynamics", "simulator")  # from the floor up
CHEAP = ("random", "mpc", "simulator")  # what `all` has; with a policy, bc too
PRIVILEGED = ("true_dynamics", "simulator")


@verb("evaluate")
def main(cfg: DictConfig) -> None:
    """Measure how often an agent reaches goal images, beside random actions and the simulator.

    Example: python -m vjepa_wm.evaluate env=push agent=all episodes=100

    The rows true_dynamics and simulator are privileged: their candidates are tried out in the true
    simulator. simulator scores them by the true distance and has a planner of its own;
    'simulator_planner=${planner}' gives it the one of mpc. true_dynamics has planner and cost of
    mpc, on frames that are drawn and encoded instead of imagined. With planner=icem that is
    33 candidates x 6 frames for each model step, with planner=cem 193 x 6, at 2 ms (bfloat16) to
    10 ms a frame on one core: 0.4 to 2 s per plan with the first, up to a minute per episode of 50
    steps; with cost.over_steps=last it is a sixth of that.

    With the rows mpc, true_dynamics and simulator an error budget is printed, too: how many points
    of success are lost by predictor, by encoder and cost, and by planner and horizon:
    agent=[mpc,true_dynamics,simulator] 'simulator_planner=${planner}' true_dynamics_episodes=20
    """
    names = chosen_agents(cfg)
    tasks, tasks_digest = chosen_tasks(cfg, level=cfg.level, count=cfg.episodes)
    runner = EpisodeRunner(
        cfg.env.id,
        num_envs=min(cfg.batch, len(tasks)),
        image_size=cfg.env.image_size,
        step_seconds=cfg.step_seconds,
    )
    with closing(runner):
        # All agents first: a missing model should not be found out after the random row.
        agents = {name: build_agent(name, cfg, runner) for name in names}
        warn_of_unlike_rows(cfg, agents)
        reels = build_reels(cfg, agents)
        episodes, rows = run_agents(cfg, runner, agents, tasks, reels)
        thresholds = runner.envs[0].get_wrapper_attr("criteria")
        criteria = {name: float(threshold) for name, threshold in thresholds.items()}
    budget = error_budget(episodes, same_planner=cfg.planner == cfg.simulator_planner)
    about = {
        **describe(cfg, names, tasks_digest),
        "criteria": criteria,
        "machine": device_line(),
        **({"error_budget": asdict(budget)} if budget else {}),
    }
    write_report(cfg.out, episodes, rows, about=about)
    write_pictures(cfg.out, reels, episodes_digest=digest(Path(cfg.out) / EPISODES_FILE))
    write_page(Path(cfg.out) / REPORT_FILE, [Path(cfg.out)])
    show(cfg, rows, budget)


def evaluate_trained(cfg: DictConfig, *options: str, max_frames: int | None = None) -> None:
    """Measure what a training verb just trained, where its environment has frozen tasks.

    It is measured on tuning tasks: a figure that comes with every training is one to choose by.

    Args:
        cfg: the training's options.
        options: what `evaluate` is told beside environment, number of episodes and folder.
        max_frames: longest sequence its predictor was trained on; where the planner of the
            environment looks farther ahead, it is told to look as far. None changes nothing.
    """
    if not cfg.evaluation_episodes:
        return
    if not has_frozen_tasks(cfg.env.name, cfg.env.id):
        print(f"not evaluated: there are no frozen tasks of {cfg.env.name} ({cfg.env.id})")
        return
    named = env_options(cfg.env)
    if max_frames is not None:
        wanted = config_of("evaluate", *named)
        longest = max_frames + 1 - wanted.context_len
        options += (f"planner.horizon={longest}",) if wanted.planner.horizon > longest else ()
    run_verb(
        "evaluate",
        *named,
        *options,
        f"device={cfg.device}",
        "tasks=tuning",
        f"episodes={cfg.evaluation_episodes}",
        f"out={cfg.out}/evaluation",
    )


def build_reels(cfg: DictConfig, agents: Mapping[str, Agent]) -> dict[str, Reel]:
    """Return what films the agents' episodes; with a decoder, mpc's with what it imagined.

    Raises:
        CheckpointError: If the decoder is not that of mpc's encoder.
    """
    reels = {name: Reel(cfg.pictures) for name in agents}
    if cfg.decoder is None:
        return reels
    mpc = agents["mpc"]
    decoder = load_decoder(cfg.decoder, mpc.world_model.encoder, device=cfg.device)
    return reels | {"mpc": Reel(cfg.pictures, partial(imagined_end, mpc, decoder))}


def imagined_end(agent: MPCAgent, decoder: Decoder, env_id: int) -> NDArray[np.uint8] | None:
    """Draw where an environment's last plan was imagined to end; None where there was no plan."""
    if agent.slots[env_id].plan is None:
        return None
    return decoder.decode(agent.imagine_plan(env_id)[-1]).cpu().numpy()


def run_agents(
    cfg: DictConfig,
    runner: EpisodeRunner,
    agents: Mapping[str, Agent],
    tasks: Sequence[Task],
    reels: Mapping[str, Reel],
) -> tuple[dict[str, list[Episode]], list[Row]]:
    """Run agents one after another, filmed on reels; returns their episodes and figures."""
    episodes: dict[str, list[Episode]] = {}
    rows: list[Row] = []
    for name, agent in agents.items():
        own = tasks[: cfg.true_dynamics_episodes] if name == "true_dynamics" else tasks
        began = time.perf_counter()
        episodes[name] = runner.run(
            agent,
            own,
            max_steps=cfg.max_steps,
            desc=name,
            progress=progress,
            reel=reels[name],
        )
        seconds = time.perf_counter() - began
        frames = agent.frames_per_plan if isinstance(agent, MPCAgent) else None
        rows.append(summarise(name, episodes[name], seconds=seconds, frames_per_plan=frames))
    return episodes, rows


def chosen_agents(cfg: DictConfig) -> Sequence[str]:
    """Return the agents to evaluate, from the floor up.

    Raises:
        UnknownNameError: If there is no such agent.
        DataError: If none is named, or options one of them needs are missing or out of range.
    """
    asked = [cfg.agent] if isinstance(cfg.agent, str) else list(cfg.agent or ())
    for name in asked:
        if name not in (*AGENTS, "all"):
            raise UnknownNameError("agent", str(name), (*AGENTS, "all"))
    if not asked:
        raise DataError(f"agent: wanted one or more of {', '.join((*AGENTS, 'all'))}, got none")
    if "all" in asked:
        asked += [*CHEAP, *(["bc"] if cfg.policy else [])]
    if "bc" in asked and not cfg.policy:
        raise DataError(
            "agent=bc needs policy=FOLDER, as python -m vjepa_wm.train_bc "
            f"env={cfg.env.name} writes it"
        )
    if cfg.decoder is not None and ("mpc" not in asked or not cfg.pictures):
        raise DataError(
            "decoder draws what mpc imagines: wanted agent=mpc or all beside it, and pictures"
        )
    count = cfg.true_dynamics_episodes
    if count is not None and count < 1:
        raise DataError(f"true_dynamics_episodes: wanted at least 1, or null for all, got {count}")
    return [name for name in AGENTS if name in asked]


def chosen_tasks(cfg: DictConfig, *, level: str, count: int) -> tuple[list[Task], str]:
    """Return the tasks `cfg.tasks` names, and the digest of the file they are from or "".

    Raises:
        VjepaWmError: There is no such list or level, or there are not as many.
    """
    if cfg.tasks not in ("frozen", "tuning") and not str(cfg.tasks).endswith(".json"):
        raise UnknownNameError("list of tasks", str(cfg.tasks), ("frozen", "tuning", "FILE.json"))
    if cfg.tasks == "tuning":
        if count < 1:
            raise DataError(f"episodes: wanted at least 1, got {count}")
        return draw_tasks(cfg.env.id, level, count, first_seed=TUNING_SEED, progress=progress), ""
    found: TaskSet = load_task_set(cfg.env.name if cfg.tasks == "frozen" else cfg.tasks)
    return found.select(level, count), found.digest


def build_agent(name: str, cfg: DictConfig, runner: EpisodeRunner) -> Agent:
    """Build an agent by name.

    Raises:
        VjepaWmError: If options contradict each other, or the model is not for this environment.
    """
    space = runner.envs[0].action_space
    if name == "random":
        return RandomAgent(space.low, space.high, seed=cfg.seed)
    if name == "bc":
        return build_bc(cfg, space)
    if name == "mpc":
        return build_mpc(cfg, space)
    with told_of(name):
        if name == "true_dynamics":
            return build_true_dynamics(cfg, runner)
        return build_simulator(cfg, runner)


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Turn what an agent's parts say of their options into an error of one line."""
    try:
        yield
    except InstantiationException as error:
        raise VjepaWmError(f"{name}: {reason_of(error) or error}") from error
    except ValueError as error:
        raise VjepaWmError(f"{name}: {error}") from error


def build_mpc(cfg: DictConfig, space: spaces.Box) -> MPCAgent:
    """Build the agent that plans in a world model, for an environment's action space.

    Raises:
        VjepaWmError: If options contradict each other, or the model is not for this environment.
    """
    world_model = load_world_model(cfg.model, device=cfg.device, dtype=cfg.precision)
    if cfg.compile:
        world_model.predictor.compile_layers()
    check_actions(world_model.action_spec, cfg, space, f"model {cfg.model}")
    warn_of_another_environment(cfg.model, cfg.env.id)
    with told_of("mpc"):
        return MPCAgent(
            world_model,
            instantiate(cfg.planner),
            instantiate(cfg.cost, metric=world_model.metric),
            context_len=cfg.context_len,
            replan_every=cfg.replan_every,
            seed=cfg.seed,
            deadline_ms=cfg.deadline_ms,
            cuda_graphs=cfg.cuda_graphs,
        )


def build_true_dynamics(cfg: DictConfig, runner: EpisodeRunner) -> TrueDynamicsAgent:
    """Build the agent that has the simulator in place of its predictor; all else is that of mpc."""
    twin = build_mpc(cfg, runner.envs[0].action_space)
    return TrueDynamicsAgent(
        runner.envs,
        twin.world_model,
        twin.planner,
        twin.cost,
        context_len=twin.context_len,
        replan_every=twin.replan_every,
        seed=twin.seed,
    )


def build_bc(cfg: DictConfig, space: spaces.Box) -> BehaviourCloningAgent:
    """Build the agent that clones the behaviour in trajectories."""
    agent = load_behaviour_cloning(cfg.policy, device=cfg.device)
    check_actions(agent.action_spec, cfg, space, f"policy {cfg.policy}")
    return agent


def warn_of_unlike_rows(cfg: DictConfig, agents: Mapping[str, Agent]) -> None:
    """Say where rows that are read beside each other differ in more than they stand for."""
    if cfg.deadline_ms is not None and {"mpc", "true_dynamics"} <= agents.keys():
        logger.warning(
            "warning: true_dynamics plans without the deadline of mpc: what the deadline costs is "
            "counted as lost by the predictor"
        )
    if not {"mpc", "bc"} <= agents.keys():
        return
    world_model, bc = agents["mpc"].world_model, agents["bc"]
    if bc.policy.takes_proprio != world_model.takes_proprio:
        logger.warning(
            "warning: of bc and mpc only %s takes proprio: train the policy with proprio=%s",
            "bc" if bc.policy.takes_proprio else "mpc",
            str(world_model.takes_proprio).lower(),
        )
    if bc.encoder.digest != world_model.encoder.digest:
        logger.warning("warning: bc and mpc see through different encoders")


def check_actions(spec: ActionSpec, cfg: DictConfig, space: spaces.Box, trained: str) -> None:
    """Refuse what was trained for other actions than the environment has; `trained` names it."""
    wanted = (tuple(space.low.tolist()), tuple(space.high.tolist()), cfg.env.frame_skip)
    found = (spec.low, spec.high, spec.frame_skip)
    if not same_actions(found, wanted):
        named = zip(("low", "high", "frame_skip"), wanted, found, strict=True)
        faults = [f"{name}: wanted {want}, got {got}" for name, want, got in named if want != got]
        raise DataError(
            f"{trained} was trained for other actions than env={cfg.env.name} has: "
            + "; ".join(faults)
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
    if {"mpc", "true_dynamics"} & set(names):
        model = str(cfg.model)
        folder = shipped_folder(model) if model in SHIPPED else Path(model)
        digests["model"] = load_checkpoint(folder).digest
    if "bc" in names:
        digests["policy"] = open_behaviour_cloning(cfg.policy).digest
    config = OmegaConf.to_container(cfg, resolve=True)
    del config["out"]  # where a run was written is not what it measured; summaries are shipped
    return {"env": cfg.env.name, "level": cfg.level, "digests": digests, "config": config}


def show(cfg: DictConfig, rows: Sequence[Row], budget: ErrorBudget | None) -> None:
    """Print the table, where success is lost, and what makes the figures doubtful."""
    print(
        f"{cfg.env.name}, {cfg.level} goals, {cfg.tasks} tasks, at most {cfg.max_steps} steps; "
        "distances are medians, steps those of successes"
    )
    print(table(rows))
    if privileged := [row.agent for row in rows if row.agent in PRIVILEGED]:
        print(f"privileged, candidates tried out in the true simulator: {', '.join(privileged)}")
    if budget is not None:
        planners = {key: planner_in_words(cfg[key]) for key in ("planner", "simulator_planner")}
        print("\n".join(budget_lines(budget, **planners)))
    budgeted = [row for row in rows if row.agent in ROWS]
    if len(budgeted) == len(ROWS) and any(row.faults for row in budgeted):
        print("no error budget: episodes were stopped, which failed for reasons of their own")
    for warning in warnings(rows):
        logger.warning("warning: %s", warning)
    print(f"every episode and the settings: {cfg.out}; to look at: {Path(cfg.out) / REPORT_FILE}")


if __name__ == "__main__":
    main()
