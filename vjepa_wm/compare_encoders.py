"""Reach goals on several encoders: python -m vjepa_wm.compare_encoders env=push.

Encoders are names or folders: encoders=[compact,runs/pretrain/pixels]. The smallest run:
python -m vjepa_wm.compare_encoders episodes=20 steps=10 metric_steps=10 integrator_steps=10
evaluation_episodes=2 'more.train_ac=["predictor=tiny"]' 'more.evaluate=["max_steps=5"]'
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vjepa_wm.checkpoint import WEIGHTS
from vjepa_wm.cli import check_overrides, env_options, progress, verb
from vjepa_wm.diagnose import check_figures
from vjepa_wm.encoders.registry import TIMM, load_encoder
from vjepa_wm.errors import SettingError
from vjepa_wm.evaluate import chosen_tasks
from vjepa_wm.evaluation.encoder_figures import encoder_rows, table
from vjepa_wm.evaluation.html.report import REPORT_FILE, write_page
from vjepa_wm.evaluation.html.runs import DIAGNOSTICS_FILE
from vjepa_wm.evaluation.report import SUMMARY_FILE
from vjepa_wm.files import write_json
from vjepa_wm.provenance import provenance
from vjepa_wm.stages import Runs, check_jobs, run_stage
from vjepa_wm.training.inputs import keep_inputs, open_or_collect

RESULTS = "encoders.json"
# Nothing here changes what is measured with an encoder
FREE = {"encoders", "levels", "jobs", "out"}


@verb("compare_encoders")
def main(cfg: DictConfig) -> None:
    """Train a world model on each of several frozen encoders, and measure all of them alike.

    Example: python -m vjepa_wm.compare_encoders env=push encoders=[compact,runs/pretrain/pixels]

    Same trajectories, steps of training, planner and tasks for all. At the end: goals reached, the
    difference to the first encoder task by task, the predictor's error beside copy-last-frame's,
    how costs order frames by true distance, and what can be read off single frames. A stopped run
    continues, and encoders can be added to a finished one.
    """
    check_jobs(cfg.jobs)
    encoders = named(cfg.encoders)
    for level in cfg.levels:
        chosen_tasks(cfg, level=level, count=cfg.evaluation_episodes)
    check_figures(cfg.what)
    env = env_options(cfg.env)
    for encoder in cfg.encoders:
        check_overrides("train_ac", [*env, *training_options(cfg, encoder)])
    check_overrides("evaluate", [*env, *cfg.more.evaluate])
    check_overrides("diagnose", [*env, *cfg.more.diagnose])
    out = Path(cfg.out)
    begin(cfg, encoders)
    run_stage(
        partial(measure, cfg, encoders), [(name,) for name in encoders], jobs=cfg.jobs, logs=out
    )
    folders = {name: out / name for name in encoders}
    rows = encoder_rows(folders, list(cfg.levels), f"diagnosis/{DIAGNOSTICS_FILE}")
    shown = [{label: asdict(number) for label, number in row.items()} for row in rows]
    about = {"config": OmegaConf.to_container(cfg, resolve=True), **provenance()}
    write_json(out / RESULTS, {"encoders": dict(zip(encoders, shown, strict=True)), **about})
    write_page(out / REPORT_FILE, list(folders.values()))
    print(f"\n{table(list(encoders), rows)}\n\nall numbers: {out / RESULTS}")
    print(f"to look at: {out / REPORT_FILE}")


def named(encoders: Sequence[str]) -> dict[str, str]:
    """Give encoders the names of their rows and folders: what they are called, fit for a path.

    Raises:
        SettingError: There is none, or two would have the same name.
    """
    if not encoders:
        raise SettingError("encoders: wanted at least one name or folder, got none")
    found = {re.sub(r"[^\w.-]+", "-", encoder).strip("-"): encoder for encoder in encoders}
    if len(found) < len(encoders):
        raise SettingError(f"encoders: wanted names that differ, got {', '.join(encoders)}")
    return found


def begin(cfg: DictConfig, encoders: Mapping[str, str]) -> None:
    """Load every encoder before hours are spent, and remember what each is measured with.

    Raises:
        VjepaWmError: One cannot be loaded or is there twice, or what is there was measured
            otherwise.
    """
    digests = {name: load_encoder(encoder).digest for name, encoder in encoders.items()}
    if len(set(digests.values())) < len(digests):
        raise SettingError(f"encoders: wanted different weights, got {digests}")
    trajectories = open_or_collect(cfg.data, cfg.env, episodes=cfg.episodes, progress=progress)
    if trajectories.meta.env_id != cfg.env.id:
        raise SettingError(
            f"data: {cfg.data} was recorded in {trajectories.meta.env_id}, goals would be those of "
            f"env.id={cfg.env.id}: wanted one environment"
        )
    options = OmegaConf.to_container(cfg, resolve=True)
    shared = {name: value for name, value in options.items() if name not in FREE}
    shared["data"] = trajectories.digest
    for name, digest in digests.items():
        keep_inputs(Path(cfg.out) / name, {"encoder": digest, **shared}, unwritten={})


def measure(
    cfg: DictConfig, encoders: Mapping[str, str], name: str, *, threads: int, log: Path
) -> None:
    """Train and measure a world model on one encoder."""
    runs = Runs(env_options(cfg.env), Path(cfg.out) / name, threads=threads, log=log)
    model = runs.once("train_ac", "model", WEIGHTS, *training_options(cfg, encoders[name]))
    goals = (f"model={model}", "agent=mpc", f"tasks={cfg.tasks}")
    goals += (f"episodes={cfg.evaluation_episodes}", *cfg.more.evaluate)
    for level in cfg.levels:
        runs.once("evaluate", level, SUMMARY_FILE, f"level={level}", *goals)
    looked_at = (f"model={model}", f"data={cfg.data}", f"what=[{','.join(cfg.what)}]")
    looked_at += (f"windows={cfg.windows}", *cfg.more.diagnose)
    runs.once("diagnose", "diagnosis", DIAGNOSTICS_FILE, *looked_at)


def training_options(cfg: DictConfig, encoder: str) -> list[str]:
    """Options of train_ac: as many steps with every encoder, however long they take."""
    budgets = {
        "trainer": cfg.steps,
        "metric_trainer": cfg.metric_steps,
        "integrator_trainer": cfg.integrator_steps,
    }
    return [
        *(["encoder=timm"] if encoder.startswith(TIMM) else []),  # pictures of the size it says
        f"encoder.name={encoder}",
        f"data={cfg.data}",
        *(f"{trainer}.steps={steps}" for trainer, steps in budgets.items()),
        *(f"{trainer}.minutes=null" for trainer in budgets),
        "evaluation_episodes=0",
        *cfg.more.train_ac,
    ]


if __name__ == "__main__":
    main()
