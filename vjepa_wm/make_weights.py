"""Make the shipped weights again, from nothing: python -m vjepa_wm.make_weights (make weights).

Each stage is one of the other verbs, run as a user would run it; collections and trainings that are
done are skipped, measurements are made again.
"""

import shutil
from pathlib import Path

from omegaconf import DictConfig

from vjepa_wm.checkpoint import CONFIG, WEIGHTS, load_checkpoint
from vjepa_wm.cli import run_verb, verb
from vjepa_wm.encoders.registry import shipped_folder
from vjepa_wm.evaluation.card import encoder_card, world_model_card
from vjepa_wm.files import atomic_path, read_json, write_json

EVALUATION = "evaluation.json"


@verb("make_weights")
def main(cfg: DictConfig) -> None:
    """Collect, pretrain, train, measure and ship; a run that was stopped continues."""
    out = Path(cfg.out)
    spent = 0.0  # CPU-minutes, without measuring
    for env in cfg.minutes:
        spent += run_verb("collect", f"env={env}", f"episodes={cfg.episodes}", *cfg.more.collect)
    encoder = out / "compact"
    spent += run_verb(
        "pretrain",
        f"data=[{','.join(f'data/{env}' for env in cfg.minutes)}]",
        f"out={encoder}",
        f"trainer.steps={cfg.pretrain_steps}",
        *cfg.more.pretrain,
    )
    ship(encoder, cfg, "compact")
    for env, minutes in cfg.minutes.items():
        spent += run_verb(
            "train_ac",
            f"env={env}",
            f"proprio={env in cfg.proprio}",
            f"encoder.checkpoint={encoder}",
            f"trainer.minutes={float(minutes)}",
            f"metric_trainer.minutes={float(cfg.metric_minutes)}",
            "evaluation_episodes=0",
            f"out={out / env}",
            *cfg.more.train_ac,
        )
        ship(out / env, cfg, env)
        for level in levels(env):
            run_verb(
                "evaluate",
                f"env={env}",
                f"model={target(cfg, env)}",
                f"level={level}",
                "agent=all",
                f"episodes={cfg.evaluation_episodes}",
                f"out={out / 'evaluation' / f'{env}_{level}'}",
                *cfg.more.evaluate,
            )
    write_cards(cfg)
    print(f"# all but measuring: {spent:.0f} CPU-minutes in this run")


def levels(env: str) -> tuple[str, ...]:
    """Levels of difficulty an environment is measured at."""
    return ("near", "door", "far") if env == "two_rooms" else ("near", "far")


def target(cfg: DictConfig, name: str) -> Path:
    """Folder a checkpoint is shipped in."""
    return shipped_folder(name) if cfg.ship_to is None else Path(cfg.ship_to) / name


def ship(run_folder: Path, cfg: DictConfig, name: str) -> None:
    """Copy a checkpoint to where it is shipped, with the shipped encoder in place of a path."""
    folder = target(cfg, name)
    config = dict(load_checkpoint(run_folder).config)
    if config["kind"] == "world_model":
        # The package's own encoder is found by name, any other only by its folder.
        checkpoint = None if cfg.ship_to is None else str(target(cfg, "compact"))
        config["encoder"] = {**config["encoder"], "checkpoint": checkpoint}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as path:
        shutil.copyfile(run_folder / WEIGHTS, path)
    write_json(folder / CONFIG, config)


def write_cards(cfg: DictConfig) -> None:
    """Write a model card beside every shipped checkpoint."""
    folder = target(cfg, "compact")
    cards = {folder: encoder_card(read_json(folder / CONFIG))}
    for env in cfg.minutes:
        folder = target(cfg, env)
        summaries = [
            read_json(Path(cfg.out) / "evaluation" / f"{env}_{level}" / "summary.json")
            for level in levels(env)
        ]
        cards[folder] = world_model_card(read_json(folder / CONFIG), summaries)
        write_json(folder / EVALUATION, summaries)
    for folder, text in cards.items():
        with atomic_path(folder / "README.md") as path:
            path.write_text(text)


if __name__ == "__main__":
    main()
