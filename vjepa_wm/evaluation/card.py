"""Model cards: what a checkpoint was made of, for how long, and how well it does."""

from collections.abc import Mapping, Sequence
from typing import Any

Config = Mapping[str, Any]


def encoder_card(config: Config) -> str:
    """Card of a pretrained encoder, in Markdown, from its `config.json`."""
    run, figures = config["config"], config["figures"]
    return f"""# {config["name"]}: a compact V-JEPA encoder

Pretrained by this project on its own simulations, with no labels, no actions and no pixels to
predict; frozen everywhere else. Made by the verbs that `make weights` runs.

- Network: video ViT, {config["vit"]["embed_dim"]} wide, {config["vit"]["depth"]} deep,
  patch {config["vit"]["patch_size"]}, tubelet {config["vit"]["tubelet_size"]},
  {config["image_size"]} x {config["image_size"]} pixels; the EMA target encoder is shipped.
- Data: {", ".join(sorted(config["data"]))}.
- Training: batch {run["trainer"]["batch_size"]}, clips of {run["num_frames"]} frames;
  against collapse: {_terms_in_words(run)}; kept at step {figures["step"]}.
- Held-out collapse monitors: standard deviation over frames {figures["frame_std"]:.2f}, effective
  rank {figures["effective_rank"]:.0f} of {config["vit"]["embed_dim"]}, rank correlation of raw
  latent distance with time apart {figures["time_rank_correlation"]:.2f}.
- Limits: it has seen these clean simulated scenes only. On real video expect nothing of it; use
  published V-JEPA weights there.
"""


def _terms_in_words(run: Config) -> str:
    """Name the terms against collapse a run was trained with, and their settings."""
    said = []
    for name, settings in run["objective"]["terms"].items():
        values = {key: value for key, value in settings.items() if not key.startswith("_")}
        if any(value for key, value in values.items() if key.endswith("weight")):
            said.append(f"{name} ({', '.join(f'{key} {value}' for key, value in values.items())})")
    return ", ".join(said) or "nothing"


def world_model_card(config: Config, summaries: Sequence[Mapping[str, Any]]) -> str:
    """Card of a world model, in Markdown, from its `config.json` and evaluation summaries."""
    run, figures = config["config"], config["figures"]
    parts = [
        f"# {config['name']}: world model for {config['env_id']}",
        "An action-conditioned predictor and a temporal metric on the frozen "
        f"`{config['encoder']['name']}` encoder. Made by the verbs that "
        "`make weights` runs.",
        f"- Data: {', '.join(sorted(config['data']))}.\n"
        f"- Training: {_budget(run['trainer'])} for the predictor (kept at step "
        f"{figures['predictor']['step']}, batches of {run['trainer']['batch_size']} windows), at "
        f"most {_budget(run['metric_trainer'])} for the metric.\n"
        f"- Input: pixels{' and proprio' if 'proprio_mean' in config['predictor'] else ''}.",
        "## Open-loop error on held-out episodes (L1 on latents)\n\n"
        + _error_table(figures["predictor"]),
        "## Goal reaching on the frozen tasks\n\n"
        f"`mpc` plans with {planner_in_words(summaries[0]['config']['planner'])}.\n\n"
        + _success_table(summaries),
        "Limits: this environment, this camera, these colours. Goals are images; success is judged "
        "by the simulator alone.",
    ]
    return "\n\n".join(parts) + "\n"


def _budget(trainer: Config) -> str:
    """Name what ends a training."""
    if trainer["minutes"] is None:
        return f"{trainer['steps']} steps"
    return f"{trainer['minutes']:g} minutes"


def planner_in_words(planner: Config) -> str:
    """Name a planner by its class and what it searches."""
    name = planner["_target_"].rpartition(".")[2]
    known = [key for key in ("horizon", "num_samples", "iterations") if key in planner]
    return " ".join([name, *(f"{key} {planner[key]}" for key in known)])


def _error_table(figures: Mapping[str, float]) -> str:
    rows = [
        "| model steps | true actions | shuffled actions | copy last frame |",
        "|---|---|---|---|",
    ]
    horizons = sum(name.endswith("_true") for name in figures)
    for k in range(1, horizons + 1):
        values = (figures[f"h{k}_{name}"] for name in ("true", "shuffled", "copy"))
        rows.append(f"| {k} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(rows)


def _success_table(summaries: Sequence[Mapping[str, Any]]) -> str:
    rows = ["| level | agent | success, % | 95 % interval | episodes |", "|---|---|---|---|---|"]
    for summary in summaries:
        for row in summary["rows"]:
            low, high = (100 * share for share in row["interval"])
            rows.append(
                f"| {summary['level']} | {row['agent']} "
                f"| {100 * row['success']:.0f} "
                f"| {low:.0f}-{high:.0f} | {row['episodes']} |"
            )
    return "\n".join(rows)
