"""The part of a report that shows episodes: start, goal, end, what was imagined, frames between."""

from collections.abc import Sequence

import numpy as np

from vjepa_wm.evaluation.html.elements import Markup, element, folded, picture, table
from vjepa_wm.evaluation.html.runs import EvaluationRun
from vjepa_wm.evaluation.html.words import criterion, length
from vjepa_wm.evaluation.reels import Strip
from vjepa_wm.evaluation.saved import EpisodeLine


def gallery(run: EvaluationRun) -> Markup:
    """Show the episodes that were filmed, agent by agent."""
    if not run.strips:
        return element(
            "p.soft", "No pictures of episodes were recorded with this run (option pictures)."
        )
    parts = []
    for agent, lines in run.episodes.items():
        if agent not in run.strips:
            continue
        by_number = {line.number: line for line in lines}
        strips = run.strips[agent]
        cards = [card(strip, by_number[strip.number]) for strip in strips]
        parts.append(element("h4", _heading(agent, strips, lines)))
        parts.append(element("div.cards", *cards))
    return element("div", *parts)


def _heading(agent: str, strips: Sequence[Strip], lines: Sequence[EpisodeLine]) -> str:
    if len(strips) == len(lines):
        return f"{agent}: all {len(lines)} episodes, failures first"
    solved = {line.number for line in lines if line.is_success}
    reached = sum(strip.number in solved for strip in strips)
    return (
        f"{agent}: the first {len(strips) - reached} of {len(lines) - len(solved)} failures and "
        f"the first {reached} of {len(solved)} successes"
    )


def card(strip: Strip, line: EpisodeLine) -> Markup:
    """Show one episode with its figures."""
    verdict = element("span.reached", "\u2713 reached")
    if not line.is_success:
        verdict = element("span.missed", "\u2715 stopped" if line.fault else "\u2715 missed")
    ends = [
        _tile(strip.frames[0], "start", f"start of episode {line.number}"),
        _tile(strip.goal, "goal", f"goal of episode {line.number}"),
        _tile(strip.frames[-1], f"end, step {line.steps}", f"end of episode {line.number}"),
    ]
    if strip.imagined is not None:
        described = f"imagined end of the last plan of episode {line.number}"
        ends.append(_tile(strip.imagined, "end of the last plan, imagined", described))
    fault = [element("p.rest.missed", line.fault)] if line.fault else []
    return element(
        "article.card",
        element("header", element("span", f"episode {line.number}"), verdict),
        element("div.ends", *ends),
        *_between(strip),
        *(element("p.rest", _way(name, line)) for name in line.final),
        element("p.rest", f"seed {line.seed}"),
        *fault,
    )


def _tile(pixels: np.ndarray, said: str, description: str) -> Markup:
    return element("div", picture(pixels, description), said)


def _way(name: str, line: EpisodeLine) -> str:
    """Say how far from the goal an episode began, came and ended."""
    kinds = {"start": line.start, "nearest": line.best, "end": line.final}
    parts = [
        f"{kind} {length(name, found[name])}" for kind, found in kinds.items() if name in found
    ]
    return f"{criterion(name)[0]}: {', '.join(parts)}"


def _between(strip: Strip) -> list[Markup]:
    """Show the frames between start and end in one row, with their steps below."""
    frames = [
        element("div", picture(pixels, f"episode {strip.number} after step {step}"), step)
        for pixels, step in zip(strip.frames[1:-1], strip.steps[1:-1], strict=True)
    ]
    return [element("div.between", *frames)] if frames else []


def all_episodes(run: EvaluationRun) -> Markup:
    """List every column of every episode, as recorded, folded away."""
    lines = [line for found in run.episodes.values() for line in found]
    head = list(lines[0].cells)
    rows = [[_shortened(line.cells[name]) for name in head] for line in lines]
    return folded(f"Every episode ({len(lines)})", table(head, rows))


def _shortened(cell: str) -> str:
    """Write a decimal number of many digits with six of them."""
    is_long = "." in cell and len(cell) > 8
    try:
        return f"{float(cell):.6g}" if is_long else cell
    except ValueError:
        return cell
