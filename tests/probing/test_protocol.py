"""The protocol on features that are made of the labels, so that what can be told is known."""

from functools import partial

import numpy as np
import pytest

from vjepa_wm.errors import DataError, SettingError
from vjepa_wm.evaluation.probes import Target, Targets
from vjepa_wm.probing.cache import Features
from vjepa_wm.probing.grid import Setting
from vjepa_wm.probing.heads import AttentiveHead, LinearHead, RidgeHead
from vjepa_wm.probing.labels import ClassLabels, StateLabels
from vjepa_wm.probing.protocol import Outcome, ProbeProtocol, Schedule
from vjepa_wm.probing.results import (
    as_json,
    differences,
    draw,
    paired_table,
    summarise,
    table,
)
from vjepa_wm.probing.splits import Splits, check_shares, split_classes

SHARES = {"validation_share": 0.2, "test_share": 0.3}
CLASSES = ("a", "b", "c")
COUNT = 240
SPLITS = Splits(np.arange(140), np.arange(140, 180), np.arange(180, 240))
TARGETS = Targets((Target("place_m", (0, 1)), Target("angle_rad", (2,), is_angle=True)))


def attentive(width: int, num_outputs: int) -> AttentiveHead:
    options = {"num_blocks": 1, "num_heads": 2, "num_queries": 1, "mlp_ratio": 2.0}
    return AttentiveHead(width=width, num_outputs=num_outputs, **options)


def linear(width: int, num_outputs: int) -> LinearHead:
    return LinearHead(width=width, num_outputs=num_outputs)


def ridge(width: int, num_outputs: int, max_gb: float = 1.0) -> RidgeHead:
    return RidgeHead(width=width, num_outputs=num_outputs, max_gb=max_gb)


def protocol(make_head=attentive, **changed: object) -> ProbeProtocol:
    options = {
        "settings": [Setting(1e-2, 0.01), Setting(3e-3, 0.01)],
        "schedule": Schedule(epochs=0, min_steps=80, batch_size=32),
        "percents": [100],
        "draws": 1,
        "seed": 0,
    }
    return ProbeProtocol(make_head=make_head, **{**options, **changed})


def features_of(tokens: np.ndarray) -> Features:
    return Features([tokens.astype(np.float16)], {}, places=None, device="cpu")


def hidden(values: np.ndarray, *, tokens: int = 6, width: int = 16) -> Features:
    """Hide values (N, V) in one marked token of each clip, at a place that differs."""
    rng = np.random.default_rng(0)
    out = rng.normal(size=(len(values), tokens, width))
    mixing = rng.normal(size=(values.shape[1], width - 1))
    place = rng.integers(tokens, size=len(values))
    out[..., -1] = 0.0
    rows = np.arange(len(values))
    out[rows, place, :-1] = values @ mixing
    out[rows, place, -1] = 4.0
    return features_of(out)


@pytest.fixture
def classes() -> ClassLabels:
    return ClassLabels(CLASSES, np.random.default_rng(0).integers(3, size=COUNT))


@pytest.fixture
def states() -> StateLabels:
    sim_state = np.random.default_rng(1).uniform(-1.5, 1.5, (COUNT, 3))
    return StateLabels(TARGETS, sim_state, episodes=np.arange(COUNT) // 2)


def test_classes_that_are_in_the_tokens_are_told_and_shuffled_ones_are_not(classes) -> None:
    features = {"known": hidden(2.0 * np.eye(3)[classes.labels])}
    (found,) = protocol().run(features, classes, SPLITS)
    assert found.scores["accuracy"] > 0.9 and found.clips == 140
    shuffled = classes.shuffled(SPLITS, np.random.default_rng(0))
    assert np.bincount(shuffled.labels[SPLITS.test]).tolist() == (
        np.bincount(classes.labels[SPLITS.test]).tolist()
    )
    (control,) = protocol().run(features, shuffled, SPLITS)
    assert control.scores["accuracy"] < 0.5  # of three classes, on 60 clips


def test_states_that_are_in_the_tokens_are_told_and_noise_is_not(states: StateLabels) -> None:
    values = TARGETS.values(states.sim_state)
    features = {"known": hidden(values), "noise": hidden(0 * values)}
    run = protocol(schedule=Schedule(0, 250, 32)).run(features, states, SPLITS)
    known, noise = (outcome.scores for outcome in run)
    assert known["R2 place_m"] > 0.9 and known["R2 angle_rad"] > 0.9
    assert known["rmse place_m"] < 0.5
    assert noise["R2 mean"] < 0.1
    assert known["R2 mean"] == pytest.approx((known["R2 place_m"] + known["R2 angle_rad"]) / 2)


def test_a_linear_head_on_linear_features_is_nearly_exact(states: StateLabels) -> None:
    """Values are exactly linear in the mean token, whose norm does not depend on them."""
    values = TARGETS.values(states.sim_state)
    tokens = np.concatenate([values, -values, np.full((COUNT, 8), 3.0)], axis=1)
    features = {"linear": features_of(np.repeat(tokens[:, None], 3, axis=1))}
    (found,) = protocol(linear, schedule=Schedule(0, 400, 64), settings=[Setting(3e-2, 0.0)]).run(
        features, states, SPLITS
    )
    assert found.scores["R2 mean"] > 0.95


def placed(values: np.ndarray, *, tokens: int = 6, width: int = 16) -> Features:
    """Put values (N, V) as they are into the second token of each clip, among noise."""
    out = np.random.default_rng(0).normal(size=(len(values), tokens, width))
    out[:, 1, : values.shape[1]] = values
    return features_of(out)


def test_a_solved_head_knows_where_tokens_are_and_needs_no_steps(states, classes) -> None:
    values = TARGETS.values(states.sim_state)
    schedule = Schedule(epochs=0, min_steps=1, batch_size=32)
    solved = protocol(ridge, schedule=schedule, draws=2, percents=[20, 100])
    few, other, found = solved.run({"known": placed(values)}, states, SPLITS)
    assert found.scores["R2 mean"] > 0.99 and found.setting is None and found.validation > 0.99
    assert found.percent == 100 and few.scores != other.scores  # all labels are all labels
    lines = summarise([few, other, found])
    assert [line.interval is None for line in lines if line.metric == "R2 mean"] == [False, True]
    (found,) = protocol(ridge).run({"known": placed(np.eye(3)[classes.labels])}, classes, SPLITS)
    assert found.scores["accuracy"] > 0.95
    (few,) = protocol(ridge, percents=[1]).run({"a": placed(0 * values)}, classes, SPLITS)
    assert few.clips == 3 and 0 <= few.scores["accuracy"] < 0.7  # one of each class will do
    (noise,) = protocol(ridge).run({"noise": placed(0 * values)}, states, SPLITS)
    assert noise.scores["R2 mean"] < 0.1


def test_a_solved_head_that_would_not_fit_says_so(classes: ClassLabels) -> None:
    small = partial(ridge, max_gb=1e-4)
    with pytest.raises(SettingError, match=r"140 clips of 96 numbers need .* GB, more than"):
        protocol(small).run({"known": placed(np.eye(3)[classes.labels])}, classes, SPLITS)


def test_heads_are_chosen_on_validation_clips_alone(classes: ClassLabels) -> None:
    """Where test labels differ, another choice must not follow."""
    features = {"known": hidden(2.0 * np.eye(3)[classes.labels])}
    settings = [Setting(1e-7, 0.0), Setting(1e-2, 0.0)]
    (found,) = protocol(settings=settings).run(features, classes, SPLITS)
    wrong = classes.labels.copy()
    wrong[SPLITS.test] = (wrong[SPLITS.test] + 1) % 3
    (other,) = protocol(settings=settings).run(features, ClassLabels(CLASSES, wrong), SPLITS)
    assert found.setting == other.setting == settings[1]
    assert found.validation == other.validation > 0.8
    assert other.scores["accuracy"] < 0.2


def test_heads_that_all_diverge_say_so(classes: ClassLabels) -> None:
    features = {"known": hidden(np.eye(3)[classes.labels])}
    with pytest.raises(SettingError, match="every head diverged"):
        protocol(settings=[Setting(1e30, 0.0)]).run(features, classes, SPLITS)


def test_draws_are_balanced_nested_and_differ(classes: ClassLabels) -> None:
    draws = {
        (share, seed): classes.draw(SPLITS.train, share, np.random.default_rng(seed))
        for share in (0.001, 0.1, 0.5, 1.0)
        for seed in (0, 1)
    }
    for seed in (0, 1):
        rows = [set(draws[share, seed].tolist()) for share in (0.001, 0.1, 0.5, 1.0)]
        assert rows[0] < rows[1] < rows[2] < rows[3] == set(SPLITS.train.tolist())
    assert np.bincount(classes.labels[draws[0.001, 0]]).tolist() == [1, 1, 1]
    whole = np.bincount(classes.labels[SPLITS.train])
    half = np.bincount(classes.labels[draws[0.5, 0]])
    assert (np.abs(half - whole / 2) <= 0.5).all()
    assert draws[0.1, 0].tolist() != draws[0.1, 1].tolist()


def test_states_are_drawn_by_episode(states: StateLabels) -> None:
    rows = states.draw(SPLITS.train, 0.2, np.random.default_rng(0))
    assert len(rows) == 28
    _, counts = np.unique(states.episodes[rows], return_counts=True)
    assert (counts == 2).all()
    assert len(states.draw(SPLITS.train, 0.0001, np.random.default_rng(0))) == 4


def test_classes_are_split_apart_with_each_on_every_side() -> None:
    labels = np.repeat([0, 1, 2], [3, 10, 40])
    usable = np.setdiff1d(np.arange(53), [20, 21])
    split = partial(split_classes, labels, CLASSES, **SHARES)
    splits = split(usable=usable, seed=0)
    together = np.concatenate(splits)
    assert sorted(together.tolist()) == usable.tolist()
    counts = [np.bincount(labels[rows]).tolist() for rows in splits]
    assert counts == [[1, 5, 19], [1, 2, 8], [1, 3, 11]]
    assert not np.array_equal(split(usable=usable, seed=1).test, splits.test)
    with pytest.raises(DataError, match="too few videos that can be used: 'a' 2; wanted at least"):
        split(usable=np.arange(1, 53), seed=0)


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.5, 0.5), (-0.1, 0.2)])
def test_shares_leave_something_for_everyone(shares: tuple[float, float]) -> None:
    with pytest.raises(SettingError, match="numbers above 0 that leave something"):
        check_shares(*shares)


def test_outcomes_are_summarised_over_draws(classes: ClassLabels) -> None:
    features = {name: hidden(np.eye(3)[classes.labels]) for name in ("first", "second")}
    quick = Schedule(epochs=1, min_steps=0, batch_size=64)
    outcomes = protocol(percents=[10, 100], draws=3, schedule=quick).run(features, classes, SPLITS)
    assert len(outcomes) == 12
    summaries = summarise(outcomes)
    assert len(summaries) == 4
    values = [o.scores["accuracy"] for o in outcomes if (o.encoder, o.percent) == ("first", 10)]
    summary = summaries[0]
    assert (summary.encoder, summary.percent, summary.draws) == ("first", 10, 3)
    assert summary.mean == pytest.approx(np.mean(values))
    margin = 4.303 * np.std(values, ddof=1) / np.sqrt(3)
    assert summary.interval == pytest.approx((summary.mean - margin, summary.mean + margin))
    # The same features, labels and starts: the same heads
    assert [s.mean for s in summaries[:2]] == [s.mean for s in summaries[2:]]
    shown = table(summaries)
    assert "accuracy" in shown and "10 %" in shown and f"{summary.mean:.3f} [" in shown
    assert draw(summaries).width > 100


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"percents": []}, "percents: wanted numbers above 0"),
        ({"percents": [0, 10]}, "percents: wanted numbers above 0"),
        ({"percents": [101]}, "percents: wanted numbers above 0"),
        ({"draws": 0}, "draws: wanted at least 1"),
        ({"settings": []}, "wanted at least one each"),
    ],
)
def test_amounts_out_of_range_are_refused(changed: dict, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        protocol(**changed)


@pytest.mark.parametrize("amounts", [(0, 0, 64), (20, 0, 0), (-1, 10, 64)])
def test_schedules_that_train_nothing_are_refused(amounts: tuple[int, int, int]) -> None:
    with pytest.raises(SettingError):
        Schedule(*amounts)


def test_a_schedule_counts_epochs_or_its_least() -> None:
    schedule = Schedule(epochs=20, min_steps=300, batch_size=64)
    assert schedule.steps(10) == 300 and schedule.steps(2100) == 20 * 33


def outcome(encoder: str, draw: int, told: np.ndarray | None) -> Outcome:
    scores = {"accuracy": 0.0 if told is None else float(told.mean())}
    return Outcome(encoder, 10, draw, 20, None, 0.0, scores, told)


def test_differences_are_those_of_the_same_clips() -> None:
    """Two that miss the same clips differ for certain; two that miss others may not differ."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(size=(4, 200)) < 0.5
    better = hard | (np.arange(200) < 20)
    other = rng.uniform(size=(4, 200)) < 0.5
    rows = {"first": better, "nested": hard, "other": other}
    found = differences(
        [outcome(name, i, row) for name, t in rows.items() for i, row in enumerate(t)]
    )
    assert [(d.encoder, d.beside, d.percent) for d in found] == [
        ("first", "nested", 10),
        ("first", "other", 10),
    ]
    nested, apart = found
    assert nested.mean == pytest.approx(better.mean() - hard.mean())
    assert 0 < nested.interval[0] < nested.mean < nested.interval[1]
    assert np.ptp(nested.interval) < 0.6 * np.ptp(apart.interval)
    assert "first less that of each" in paired_table(found) and "+0.0" in paired_table(found)
    same = differences([outcome(name, 0, hard[0]) for name in ("a", "b")])
    assert same[0].mean == 0 and same[0].interval == (0, 0)


def test_draws_that_disagree_widen_a_difference() -> None:
    """Not the clips alone are drawn anew."""
    up, down = np.ones(500, bool), np.zeros(500, bool)
    rows = {"a": [up, down], "b": [down, down]}
    found = differences(
        [outcome(name, i, row) for name, t in rows.items() for i, row in enumerate(t)]
    )
    assert found[0].mean == 0.5 and found[0].interval == (0, 1)


def test_states_are_neither_right_nor_wrong(states: StateLabels) -> None:
    features = {name: hidden(TARGETS.values(states.sim_state)) for name in ("a", "b")}
    found = protocol(ridge).run(features, states, SPLITS)
    assert [each.told for each in found] == [None, None] and differences(found) == []


def test_shares_that_are_the_same_clips_are_trained_on_once(classes: ClassLabels) -> None:
    """Of 140 clips of three classes 0.1 and 1 % are one clip of each."""
    features = {"a": hidden(np.eye(3)[classes.labels])}
    seen: list[int] = []

    def head(width: int, num_outputs: int) -> RidgeHead:
        seen.append(1)
        return ridge(width, num_outputs)

    few = protocol(head, percents=[0.1, 1, 10], draws=2).run(features, classes, SPLITS)
    assert len(seen) == 1 + 2 * 2  # one is made to look at
    alone = protocol(ridge, percents=[1], draws=2).run(features, classes, SPLITS)
    assert [each.percent for each in few] == [0.1, 0.1, 1, 1, 10, 10]
    for merged in (few[:2], few[2:4]):
        assert [each.clips for each in merged] == [3, 3]
        assert [each.scores for each in merged] == [each.scores for each in alone]


def test_an_interval_of_shares_ends_where_shares_do() -> None:
    """Student's of two draws is wide; that of R2 may end below 0."""
    for metric, interval in (("accuracy", (0.0, 1.0)), ("mean R2", (-4.583, 5.583))):
        rows = [
            Outcome("a", 10, draw, 3, None, value, {metric: value})
            for draw, value in enumerate((0.1, 0.9))
        ]
        assert summarise(rows)[0].interval == pytest.approx(interval, abs=0.01)


def test_what_is_told_is_what_accuracy_counts(classes: ClassLabels) -> None:
    """Of trained and of solved heads; files hold its differences and not every clip."""
    features = {name: hidden(np.eye(3)[classes.labels]) for name in ("a", "b")}
    for make_head in (attentive, ridge):
        found = protocol(make_head).run(features, classes, SPLITS)
        for each in found:
            assert each.told.shape == SPLITS.test.shape
            assert each.scores["accuracy"] == pytest.approx(each.told.mean())
        written = as_json(found, differences(found))
        assert written["differences"][0]["mean"] == 0
        assert all("told" not in row for row in written["outcomes"])
