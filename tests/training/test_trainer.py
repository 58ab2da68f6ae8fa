"""The trainer: a run that was killed goes on as if nothing had happened, and says what is wrong."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vjepa_wm.errors import CheckpointError, SettingError, UnknownNameError
from vjepa_wm.training import trainer as trainer_module
from vjepa_wm.training.trainer import Trainer

SETTINGS = {
    "steps": 12,
    "minutes": None,
    "batch_size": 8,
    "learning_rate": 0.01,
    "weight_decay": 0.1,
    "warmup": 0.2,
    "clip_grad": 1.0,
    "validate_every": 4,
    "precision": "fp32",
    "seed": 0,
}


class KilledError(Exception):
    """Stands for the end of the process."""


class Toy:
    """Fits a line; draws from both generators that a resumed run must restore."""

    def __init__(self, *, width: int = 3, killed_at: int | None = None) -> None:
        torch.manual_seed(5)
        self.module = nn.Sequential(nn.Linear(width, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.killed_at = killed_at
        self.losses: list[float] = []
        self.shares: list[float] = []

    def loss(self, rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        if len(self.losses) == self.killed_at:
            raise KilledError
        x = torch.from_numpy(rng.normal(size=(8, self.module[0].in_features))).float()
        loss = (self.module(x) - x.sum(1, keepdim=True)).square().mean()
        self.losses.append(float(loss.detach()))
        self.shares.append(share)
        return loss, {"half": loss / 2}

    def validate(self) -> dict[str, float]:
        assert not self.module.training
        return {"error": float((self.module(torch.ones(1, self.module[0].in_features)) - 3).abs())}

    def fit(self, folder: Path, **settings: object) -> dict[str, float]:
        trainer = Trainer(**{**SETTINGS, **settings})
        return trainer.fit(
            self.module, self.loss, folder=folder, validate=self.validate, select="error"
        )


def rows(folder: Path) -> list[dict]:
    """Return the log without its clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "minutes"} for line in lines]


@pytest.fixture
def straight(tmp_path: Path) -> Iterator[tuple[Toy, Path, dict]]:
    """A run of 12 steps that nothing disturbs."""
    toy = Toy()
    yield toy, tmp_path / "straight", toy.fit(tmp_path / "straight")


def assert_same_run(toy: Toy, folder: Path, figures: dict, straight: tuple) -> None:
    """Compare bit by bit: what was learned, what was logged, what was returned."""
    other, other_folder, other_figures = straight
    assert toy.losses == other.losses[-len(toy.losses) :]
    for name, tensor in other.module.state_dict().items():
        assert torch.equal(toy.module.state_dict()[name], tensor), name
    assert rows(folder) == rows(other_folder)
    assert figures == other_figures


@pytest.mark.parametrize("killed_at", [2, 4, 7, 11])
def test_killed_and_resumed_is_as_one_run(straight, tmp_path: Path, killed_at: int) -> None:
    """From the last validation on: losses, parameters and log are those of an undisturbed run."""
    folder = tmp_path / "killed"
    with pytest.raises(KilledError):
        Toy(killed_at=killed_at).fit(folder)
    torch.manual_seed(999)
    again = Toy()
    figures = again.fit(folder)
    assert len(again.losses) == 12 - killed_at // 4 * 4
    assert_same_run(again, folder, figures, straight)
    assert [row["step"] for row in rows(folder)] == [0, 4, 8, 12]


@pytest.mark.parametrize("saves", [0, 1, 2])
def test_killed_between_log_and_state(straight, tmp_path: Path, monkeypatch, saves: int) -> None:
    """The row of a state that was never written is dropped, also when it was cut off."""
    folder = tmp_path / "killed"
    save, left = torch.save, iter(range(saves))

    def save_some(state: dict, path: Path) -> None:
        if next(left, None) is None:
            path.write_bytes(b"half a st")
            raise KilledError
        save(state, path)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(torch, "save", save_some)
        Toy().fit(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 0.1')
    again = Toy()
    assert_same_run(again, folder, again.fit(folder), straight)


def test_a_finished_run_is_not_trained_again(straight) -> None:
    """It gives back the kept state and its figures at once."""
    toy, folder, figures = straight
    before = rows(folder)
    again = Toy()
    assert again.fit(folder) == figures
    assert again.losses == []
    assert rows(folder) == before
    assert torch.equal(again.module[0].weight, toy.module[0].weight)


def test_a_longer_budget_continues(straight) -> None:
    _, folder, _ = straight
    again = Toy()
    again.fit(folder, steps=20)
    assert len(again.losses) == 8
    assert [row["step"] for row in rows(folder)] == [0, 4, 8, 12, 16, 20]


def test_a_lost_log_does_not_stop_a_resume(straight) -> None:
    _, folder, _ = straight
    (folder / "metrics.jsonl").unlink()
    Toy().fit(folder, steps=16)
    assert [row["step"] for row in rows(folder)] == [16]


def test_the_share_of_the_budget_grows_evenly(straight) -> None:
    toy, _, _ = straight
    assert toy.shares == pytest.approx([step / 12 for step in range(12)])


def test_minutes_end_a_run_and_validation_is_free(tmp_path: Path, monkeypatch) -> None:
    """One minute at a second per step; a validation takes an hour; resuming goes on counting."""
    now = [0.0]
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow(Toy):
        def loss(self, rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
            result = super().loss(rng, share)
            now[0] += 1.0
            return result

        def validate(self) -> dict[str, float]:
            now[0] += 3600.0
            return super().validate()

    first = Slow(killed_at=30)
    budget = {"steps": None, "minutes": 1.0, "validate_every": 10}
    with pytest.raises(KilledError):
        first.fit(tmp_path, **budget)
    second = Slow()
    second.fit(tmp_path, **budget)
    assert len(second.losses) == 30
    assert second.shares == pytest.approx([step / 60 for step in range(30, 60)])
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["minutes"] for row in log] == pytest.approx([t / 6 for t in range(7)])


def test_the_sooner_of_two_budgets_ends_a_run(tmp_path: Path) -> None:
    toy = Toy()
    toy.fit(tmp_path / "a", steps=3, minutes=60.0)
    assert len(toy.losses) == 3
    toy = Toy()
    toy.fit(tmp_path / "b", steps=10**9, minutes=1e-9)
    assert len(toy.losses) <= 1


def test_a_budget_of_no_steps_measures_only(tmp_path: Path) -> None:
    toy = Toy()
    assert toy.fit(tmp_path, steps=0)["step"] == 0
    assert toy.losses == []


@pytest.mark.parametrize(
    ("select", "higher_is_better", "values", "kept"),
    [
        ("error", False, [3.0, 1.0, 2.0, 4.0], 4),
        ("rank_correlation", True, [0.1, 0.2, 0.9, 0.3], 8),
        (None, False, [1.0, float("nan"), 3.0, 2.0], 12),
    ],
)
def test_the_best_state_is_given_back(
    tmp_path: Path, select: str | None, higher_is_better: bool, values: list[float], kept: int
) -> None:
    """None keeps the last."""
    states, figures = [], iter(values)
    toy = Toy()

    def validate() -> dict[str, float]:
        states.append(toy.module[0].weight.clone())
        return {select or "other": next(figures)}

    trainer = Trainer(**SETTINGS)
    best = trainer.fit(
        toy.module,
        toy.loss,
        folder=tmp_path,
        validate=validate,
        select=select,
        higher_is_better=higher_is_better,
    )
    assert best == {"step": kept, select or "other": values[kept // 4]}
    assert torch.equal(toy.module[0].weight, states[kept // 4])
    assert not torch.equal(states[0], states[1])


def test_what_is_untrained_is_kept_only_where_nothing_else_is_there(tmp_path: Path) -> None:
    """Unless it may be: where it was trained before."""
    for steps, may_be, kept in ((0, False, 0), (8, False, 4), (8, True, 0)):
        figures = iter([3.0, 5.0, 6.0])
        toy = Toy()
        best = Trainer(**SETTINGS | {"steps": steps}).fit(
            toy.module,
            toy.loss,
            folder=tmp_path / f"{steps}_{may_be}",
            validate=lambda figures=figures: {"error": next(figures)},
            select="error",
            keep_untrained=may_be,
        )
        assert best["step"] == kept


def test_an_unknown_figure_to_select_by_names_the_nearest(tmp_path: Path) -> None:
    toy = Toy()
    with pytest.raises(UnknownNameError, match="Did you mean 'error'"):
        Trainer(**SETTINGS).fit(
            toy.module, toy.loss, folder=tmp_path, validate=toy.validate, select="eror"
        )


@pytest.mark.parametrize("budget", [{"steps": -1}, {"minutes": -0.5}, {"minutes": float("nan")}])
def test_budgets_below_nothing_are_refused(budget: dict) -> None:
    with pytest.raises(SettingError, match="must be 0 or more, or null"):
        Trainer(**SETTINGS | budget)


def test_what_a_killed_process_left_of_its_state_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".state.12345.tmp.pt").write_bytes(b"half")
    Toy().fit(tmp_path, steps=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "state.pt"]


def test_after_step_follows_every_step(tmp_path: Path) -> None:
    toy, calls = Toy(), []
    trainer = Trainer(**SETTINGS)
    trainer.fit(
        toy.module,
        toy.loss,
        folder=tmp_path,
        validate=toy.validate,
        select="error",
        after_step=lambda: calls.append(len(toy.losses)),
    )
    assert calls == list(range(1, 13))


def broken(kind: str, toy: Toy) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    """Return a loss that fails at its sixth step: itself, or in its gradient only."""

    def loss(rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        value, parts = toy.loss(rng, share)
        if len(toy.losses) == 6:
            weight = toy.module[0].weight
            value = value * float("nan") if kind == "loss" else value + (weight * 0).sum().sqrt()
        return value, parts

    return loss


@pytest.mark.parametrize("kind", ["loss", "gradient norm"])
def test_what_is_not_finite_ends_the_run(tmp_path: Path, kind: str) -> None:
    """Before it reaches the parameters, so that the last state stays good to go on from."""
    toy = Toy()
    with pytest.raises(CheckpointError, match=f"the {kind} became nan at step 5.*learning_rate"):
        Trainer(**SETTINGS).fit(
            toy.module, broken(kind, toy), folder=tmp_path, validate=toy.validate, select="error"
        )
    assert all(p.isfinite().all() for p in toy.module.parameters())
    again = Toy()
    again.fit(tmp_path)
    assert len(again.losses) == 8


def test_a_figure_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    toy = Toy()
    with pytest.raises(CheckpointError, match="the error became nan at step 0"):
        Trainer(**SETTINGS).fit(
            toy.module,
            toy.loss,
            folder=tmp_path,
            validate=lambda: {"error": float("nan")},
            select="error",
        )


class Bomb:
    """Runs code when a careless program unpickles it."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


def damage(kind: str, path: Path) -> None:
    whole = path.read_bytes()
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    elif kind == "other contents":
        torch.save([1, 2, 3], path)
    else:
        kept = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"hello world" * 50}
        path.write_bytes(kept[kind])


@pytest.mark.parametrize("kind", ["empty", "cut", "text", "pickle", "other contents"])
def test_a_damaged_state_is_named(straight, monkeypatch, tmp_path: Path, kind: str) -> None:
    """One error for every damage, and nothing in the file is run."""
    monkeypatch.chdir(tmp_path)
    _, folder, _ = straight
    damage(kind, folder / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt does not fit this run .*Delete the fold"):
        Toy().fit(folder)
    assert not Path("exploded").exists()


def test_a_state_of_another_model_is_refused(straight) -> None:
    _, folder, _ = straight
    with pytest.raises(CheckpointError, match=r"state\.pt does not fit this run .*size mismatch"):
        Toy(width=5).fit(folder)


def test_a_trainer_needs_a_budget_and_validations() -> None:
    with pytest.raises(ValueError, match="steps, minutes or both"):
        Trainer(**{**SETTINGS, "steps": None})
    with pytest.raises(ValueError, match="validate_every must be at least 1"):
        Trainer(**{**SETTINGS, "validate_every": 0})


class Pieces(Toy):
    """Gives the loss of each half of a batch when it is asked for."""

    def loss(self, rng: np.random.Generator, share: float) -> Iterator[tuple]:
        x = torch.from_numpy(rng.normal(size=(8, 3))).float()
        for half in x.chunk(2):
            loss = (self.module(half) - half.sum(1, keepdim=True)).square().mean() / 2
            yield loss, {"half": loss / 2}


def test_a_loss_in_pieces_is_their_sum(tmp_path: Path) -> None:
    """One step per batch, the same as of the whole, and one figure in the log."""
    whole, pieces = Toy(), Pieces()
    for toy, name in ((whole, "whole"), (pieces, "pieces")):
        toy.module[1].p = 0.0
        toy.fit(tmp_path / name)
    for one, other in zip(whole.module.parameters(), pieces.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    logs = rows(tmp_path / "whole"), rows(tmp_path / "pieces")
    for row, other in zip(*logs, strict=True):
        assert row == pytest.approx(other, rel=1e-3)
