"""Turns the surprise of twins into figures: AUROC per event, a table, lines for CSV files.

Shapes: B pairs, T frames.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vjepa_wm.evaluation.findings import Finding
from vjepa_wm.evaluation.statistics import auroc, bootstrap_interval, wilson_interval
from vjepa_wm.evaluation.surprise import ROWS, TOKENS, Curves, TwinSurprise
from vjepa_wm.evaluation.tables import aligned

CHANCE = 0.5
TWINS = ("possible", "impossible")


@dataclass(frozen=True)
class Told:
    """How well a score tells impossible clips from possible ones.

    Attributes:
        auroc: Over all of both; 0.5 is chance.
        interval: Its 95 % bootstrap interval over pairs.
        higher: Share of the pairs whose impossible twin scores higher; ties do not.
        higher_interval: Wilson's 95 % interval.
    """

    auroc: float
    interval: tuple[float, float]
    higher: float
    higher_interval: tuple[float, float]


@dataclass(frozen=True)
class EventFigure:
    """What is noticed of an event.

    Attributes:
        event: Its name.
        says: What happens.
        pairs: Number of pairs B.
        frames_ahead: Frames the predictor looked ahead.
        context_len: Observed frames it saw, at most.
        tokens: Which key of `TOKENS` is looked at first.
        rows: Row -> key of `TOKENS` -> figures.
        gain: AUROC of the predictor less that of copy.
        gain_interval: Its 95 % bootstrap interval over pairs.
    """

    advice: ClassVar[str] = (
        "near 0.5 the event goes unnoticed. If copy notices it, the predictor expects the event or "
        "errs as much in possible scenes (diagnose what=[actions,rollout]); if neither does, the "
        "encoder may not keep it (diagnose what=probe). copy as good as the predictor means that "
        "the event shows in any two frames: foreseeing adds nothing"
    )
    event: str
    says: str
    pairs: int
    frames_ahead: int
    context_len: int
    tokens: str
    rows: dict[str, dict[str, Told]]
    gain: float
    gain_interval: tuple[float, float]

    @property
    def title(self) -> str:
        """Heading."""
        return f"{self.event}: {self.says} ({self.pairs} pairs)"

    def findings(self) -> list[Finding]:
        """AUROC of the predictor beside its floors, and the share of pairs."""
        own = self.rows["predictor"][self.tokens]
        others = {name: self.rows[row][self.tokens] for row, name in ROWS.items()}
        del others[ROWS["predictor"]]
        is_bad = own.interval[0] <= CHANCE
        beside = {name: found.auroc for name, found in others.items()}
        for tokens in TOKENS:
            if tokens != self.tokens:
                beside[f"{tokens} token error"] = self.rows["predictor"][tokens].auroc
        shares = {name: found.higher for name, found in others.items()}
        return [
            Finding("AUROC", own.auroc, is_bad, own.interval, beside),
            Finding("impossible twin higher", own.higher, is_bad, own.higher_interval, shares),
            Finding("AUROC less copy's", self.gain, is_bad=False, interval=self.gain_interval),
        ]


def event_figure(found: TwinSurprise, *, tokens: str, seed: int) -> EventFigure:
    """Summarise an event.

    Args:
        found: Surprise of its twins.
        tokens: Which key of `TOKENS` is looked at first.
        seed: Of the resampling.
    """
    rows = {
        row: {name: _told(found, row, name, seed=seed) for name in TOKENS} for row in found.curves
    }

    def gain(*scores: Sequence[float]) -> float:
        return auroc(scores[1], scores[0]) - auroc(scores[3], scores[2])

    scores = (*found.scores("predictor", tokens), *found.scores("copy", tokens))
    return EventFigure(
        event=found.clips.event,
        says=found.clips.says,
        pairs=len(found.clips),
        frames_ahead=found.looks.ahead,
        context_len=found.looks.context_len,
        tokens=tokens,
        rows=rows,
        gain=gain(*scores),
        gain_interval=bootstrap_interval(gain, *scores, seed=seed),
    )


def _told(found: TwinSurprise, row: str, tokens: str, *, seed: int) -> Told:
    possible, impossible = found.scores(row, tokens)
    count, higher = len(possible), int((impossible > possible).sum())
    return Told(
        auroc=auroc(impossible, possible),
        interval=bootstrap_interval(auroc, impossible, possible, seed=seed),
        higher=higher / count,
        higher_interval=wilson_interval(higher, count),
    )


def table(figures: Sequence[EventFigure]) -> str:
    """Lay figures out as text, a line per event below a line of headings."""
    first = figures[0].tokens
    other = next(name for name in TOKENS if name != first)
    lines = [
        [
            "event",
            "predictor",
            f"by {other} token",
            *(name for row, name in ROWS.items() if row != "predictor"),
            "predictor less copy",
            "impossible twin higher %",
        ]
    ]
    for figure in figures:
        own = figure.rows["predictor"][first]
        shares = (100 * share for share in (own.higher, *own.higher_interval))
        lines.append(
            [
                figure.event,
                _area(own),
                _area(figure.rows["predictor"][other]),
                *(_area(figure.rows[row][first]) for row in ROWS if row != "predictor"),
                "{:+.2f} [{:+.2f}, {:+.2f}]".format(figure.gain, *figure.gain_interval),
                "{:.0f} [{:.0f}, {:.0f}]".format(*shares),
            ]
        )
    return aligned(lines)


def _area(told: Told) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(told.auroc, *told.interval)


def typical(found: TwinSurprise, tokens: str) -> int:
    """Return the pair whose twins differ by the median, neither the best nor the worst."""
    possible, impossible = found.scores("predictor", tokens)
    order = (impossible - possible).argsort(kind="stable")
    return int(order[len(order) // 2])


def pair_lines(found: TwinSurprise) -> Iterator[dict[str, object]]:
    """Lay scores out as lines of a CSV, one per pair."""
    scores = {(row, tokens): found.scores(row, tokens) for row in found.curves for tokens in TOKENS}
    for pair, episode in enumerate(found.clips.episodes):
        yield {
            "event": found.clips.event,
            "pair": pair,
            "episode": episode,
            **{
                f"{row}_{tokens}_{twin}": float(score[place, pair])
                for (row, tokens), score in scores.items()
                for place, twin in enumerate(TWINS)
            },
        }


def frame_lines(found: TwinSurprise) -> Iterator[dict[str, object]]:
    """Lay curves out as lines of a CSV, one per frame of each twin."""
    for pair in range(len(found.clips)):
        for place, twin in enumerate(TWINS):
            curves = {
                row: {tokens: curve[place, pair] for tokens, curve in own.items()}
                for row, own in found.curves.items()
            }
            about = {"event": found.clips.event, "pair": pair, "twin": twin}
            for line in curve_lines(curves):
                yield {**about, **line, "since_event": int(str(line["frame"])) - found.clips.frame}


def curve_lines(curves: Curves) -> Iterator[dict[str, object]]:
    """Lay curves (T,) out as lines of a CSV, one per frame; empty where nothing was foreseen."""
    named = _named(curves)
    for frame in range(len(next(iter(named.values())))):
        values = {name: float(curve[frame]) for name, curve in named.items()}
        yield {
            "frame": frame,
            **{name: "" if math.isnan(value) else value for name, value in values.items()},
        }


def _named(curves: Curves) -> Mapping[str, Sequence[float]]:
    return {
        f"{row}_{tokens}": curve for row, own in curves.items() for tokens, curve in own.items()
    }
