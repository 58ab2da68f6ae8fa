"""One flat training loop with a budget, a schedule, checkpoints and exact resume.

It knows nothing of what is trained: the caller hands it a module and a loss function.
"""

import json
import logging
import math
import pickle
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vjepa_wm import distributed
from vjepa_wm.errors import CheckpointError, SettingError, UnknownNameError
from vjepa_wm.files import atomic_path, remove_unfinished
from vjepa_wm.precision import resolve_dtype
from vjepa_wm.progress import no_progress, progress
from vjepa_wm.training.optimizers import make_optimizer
from vjepa_wm.training.schedules import HalfCosine, Schedule

logger = logging.getLogger(__name__)

STATE = "state.pt"
Logs = dict[str, float]
Loss = tuple[Tensor, dict[str, Tensor]]  # and its parts, for the log
LossFn = Callable[[np.random.Generator, float], Loss | Iterable[Loss]]
# What torch.load and load_state_dict raise on a file that is cut off, damaged or of another model.
UNREADABLE = (
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    OSError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
)


class Trainer:
    """Trains a module until its budget is spent.

    Args:
        steps: number of optimiser steps, or None for no limit.
        minutes: training time in minutes, or None for no limit; the sooner of the two ends it.
        batch_size: samples per step, for the caller's loss function.
        learning_rate: peak of the schedule.
        weight_decay: decoupled, on matrices only.
        warmup: share of the budget spent warming up.
        clip_grad: largest gradient norm, or None for no limit.
        validate_every: steps between validations and checkpoints.
        precision: `auto`, `bf16` or `fp32`.
        seed: of the sampler and of the initial weights.
        accumulate: pieces a batch is worked through in, for the caller's loss function.
        schedule: how learning rate and weight decay move over the budget; None is a linear warm-up,
            then a half cosine to 1 % of the peak.
        optimizer: `adamw`, or `muon` for the matrices inside transformer blocks and AdamW for the
            rest, at the same learning rate.
    """

    def __init__(
        self,
        *,
        steps: int | None,
        minutes: float | None,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        clip_grad: float | None,
        validate_every: int,
        precision: str,
        seed: int,
        accumulate: int = 1,
        schedule: Schedule | None = None,
        optimizer: str = "adamw",
    ) -> None:
        if steps is None and minutes is None:
            raise SettingError("the trainer needs a budget: give steps, minutes or both")
        counts = {"validate_every": validate_every, "batch_size": batch_size}
        for name, count in {**counts, "accumulate": accumulate}.items():
            if count < 1:
                raise SettingError(f"{name} must be at least 1, got {count}")
        for name, budget in {"steps": steps, "minutes": minutes}.items():
            if budget is not None and not budget >= 0:
                raise SettingError(f"{name} must be 0 or more, or null, got {budget}")
        self.steps = steps
        self.minutes = minutes
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.clip_grad = clip_grad
        self.validate_every = validate_every
        self.precision = precision
        self.seed = seed
        self.accumulate = accumulate
        self.schedule: Schedule = HalfCosine() if schedule is None else schedule
        self.optimizer = optimizer

    def fit(
        self,
        module: nn.Module,
        loss_fn: LossFn,
        *,
        folder: Path,
        validate: Callable[[], Logs],
        select: str | None,
        higher_is_better: bool = False,
        keep_untrained: bool = False,
        after_step: Callable[[], None] = lambda: None,
    ) -> Logs:
        """Train, or go on training, in a run folder.

        Args:
            module: what is trained and saved; gets the best state back at the end.
            loss_fn: called with a random generator and the share of the budget spent; returns the
                loss and its parts. It may yield several, whose sum is the loss of the batch; each
                is backpropagated before the next is made. Where several processes train, each
                returns that of its part of the batch, and the mean counts.
            folder: holds `state.pt` (exact state to resume from) and `metrics.jsonl`.
            validate: returns named figures.
            select: the figure by which the best state is kept. None keeps the last state.
            higher_is_better: whether the best is where that figure is highest, and not lowest.
            keep_untrained: whether the state before the first step may be the best one, as where it
                was trained before; where there is no other it is kept anyway.
            after_step: called after every optimiser step.

        Returns:
            The validation figures of the state that was kept.

        Raises:
            CheckpointError: the folder's state is damaged or not of this run, or the loss, its
                gradient or the selected figure is no finite number; the last state stays.
            UnknownNameError: there is no such figure.
        """
        choice = _Choice(select, higher_is_better, keep_untrained)
        loop = _Loop(self, module, folder, choice)
        loop.resume()
        device = next(module.parameters()).device
        dtype = resolve_dtype(self.precision, device)
        autocast = torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
        shown = progress if distributed.is_first() else no_progress
        with shown(total=100, desc=folder.name, unit="%") as bar:
            while True:
                share = loop.share()
                if share >= 1 or loop.step % self.validate_every == 0:
                    with autocast:
                        loop.validated(validate)
                if share >= 1:
                    break
                loop.backward(loss_fn, share, autocast)
                loop.optimise(share)
                after_step()
                bar.set_postfix_str(
                    f"step {loop.step} loss {loop.average['loss']:.4f}", refresh=False
                )
                bar.update(100 * share - bar.n)
        return loop.restore_best()


@dataclass(frozen=True)
class _Choice:
    """Which state is the best, see `Trainer.fit`."""

    select: str | None
    higher_is_better: bool
    keep_untrained: bool

    def score(self, figures: Logs, step: int) -> float:
        """What the best state is chosen by, lower is better."""
        if self.select is None:
            return -float(step)
        if self.select not in figures:
            raise UnknownNameError("figure to select by", self.select, figures)
        _require_finite(self.select, figures[self.select], step)
        return -figures[self.select] if self.higher_is_better else figures[self.select]


class _Loop:
    """The state of one run: everything that must survive a kill."""

    def __init__(
        self,
        trainer: Trainer,
        module: nn.Module,
        folder: Path,
        choice: "_Choice",
    ) -> None:
        self.trainer = trainer
        self.module = module
        self.folder = folder
        self.choice = choice
        folder.mkdir(parents=True, exist_ok=True)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(
            trainer.optimizer,
            module,
            learning_rate=trainer.learning_rate,
            weight_decay=trainer.weight_decay,
        )
        self.rng = np.random.default_rng(trainer.seed)
        self.step = 0
        self.seconds = 0.0
        self.clock = time.perf_counter()
        self.average: Logs = {}
        self.best: dict[str, object] | None = None
        self.last_saved = -1

    def share(self) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        now = time.perf_counter()
        self.seconds += now - self.clock
        self.clock = now
        shares = [0.0]
        if self.trainer.steps is not None:
            shares.append(self.step / self.trainer.steps if self.trainer.steps else 1.0)
        if self.trainer.minutes is not None:
            seconds = distributed.from_first(self.seconds)  # clocks differ, budgets must not
            shares.append(seconds / max(60 * self.trainer.minutes, 1e-9))
        return min(max(shares), 1.0)

    def backward(self, loss_fn: LossFn, share: float, autocast: torch.autocast) -> None:
        """Backpropagate the loss of a batch, piece by piece where it comes so, and log it."""
        with autocast:
            made = loss_fn(self.rng, share)
        pieces = iter([made] if isinstance(made, tuple) else made)
        sums: Logs = {}
        while True:
            with autocast:  # a piece is computed when it is asked for
                piece = next(pieces, None)
            if piece is None:
                break
            loss, parts = piece
            loss.backward()
            for name, value in {"loss": loss, **parts}.items():  # after it: reading waits for a GPU
                number = float(value.detach())
                sums[name] = sums[name] + number if name in sums else number
        self.log(distributed.average(sums, loss.device))

    def optimise(self, share: float) -> None:
        """Take one optimiser step at the learning rate of this share of the budget."""
        self._set_rates(share)
        distributed.average_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self._largest_norm(share))
        _require_finite("gradient norm", float(norm), self.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _set_rates(self, share: float) -> None:
        """Set learning rate and weight decay to those of this share of the budget."""
        trainer = self.trainer
        rate = trainer.learning_rate * trainer.schedule.rate(share, trainer.warmup)
        decay = trainer.schedule.weight_decay(share, trainer.weight_decay)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            if any(parameter.ndim > 1 for parameter in group["params"]):
                group["weight_decay"] = decay

    def _largest_norm(self, share: float) -> float:
        limit = self.trainer.clip_grad
        clips = limit is not None and self.trainer.schedule.clips(share, self.trainer.warmup)
        return limit if clips else math.inf

    def log(self, values: Logs) -> None:
        """Keep running averages of the loss and its parts."""
        for name, number in values.items():
            self.average[name] = (
                number + 0.98 * (self.average[name] - number) if (name in self.average) else number
            )
        _require_finite("loss", values["loss"], self.step)

    def validated(self, validate: Callable[[], Logs]) -> None:
        """Validate, log, keep the best state, save; the time it takes is not charged."""
        if self.step == self.last_saved:
            return
        if distributed.is_first():  # the others wait for it where they next need it
            self._validate_and_save(validate)
        self.last_saved = self.step
        self.clock = time.perf_counter()

    def _validate_and_save(self, validate: Callable[[], Logs]) -> None:
        self.module.eval()
        with torch.no_grad():
            figures = validate()
        self.module.train()
        row = {"step": self.step, "minutes": self.seconds / 60, **self.average, **figures}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        logger.info(" ".join(f"{key} {value:.4g}" for key, value in row.items()))
        score = self.choice.score(figures, self.step)
        if self._is_first_choice() or score <= self.best["score"]:
            state = {key: value.clone() for key, value in self.module.state_dict().items()}
            self.best = {"score": score, "state": state, "figures": {"step": self.step, **figures}}
        self.save()

    def _is_first_choice(self) -> bool:
        """Whether there is no best state yet that may stay the best."""
        if self.best is None:
            return True
        return self.best["figures"]["step"] == 0 and not self.choice.keep_untrained

    def save(self) -> None:
        """Write the exact state, atomically."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            "step": self.step,
            "seconds": self.seconds,
            "average": self.average,
            "best": self.best,
        }
        with atomic_path(self.folder / STATE) as path:
            torch.save(state, path)

    def resume(self) -> None:
        """Go on from `state.pt` if there is one, with as many processes as there are now."""
        path = self.folder / STATE
        is_begun = path.exists()
        if is_begun:
            self._read_state(path)
            logger.info("resumed %s at step %d", path, self.step)
        distributed.wait()  # nobody writes before all have read
        if self.step != distributed.from_first(self.step):
            raise CheckpointError(f"{path} is not the same to all processes: they need one folder")
        distributed.share_state(self.module.state_dict().values())
        if distributed.is_first():
            remove_unfinished(path)
            if is_begun:
                self._drop_rows_after(self.step)
            else:
                (self.folder / "metrics.jsonl").unlink(missing_ok=True)
        self.clock = time.perf_counter()

    def _read_state(self, path: Path) -> None:
        try:
            self._restore(torch.load(path, weights_only=True, map_location="cpu"))
        except UNREADABLE as error:
            reason = textwrap.shorten(str(error), 150) or type(error).__name__
            raise CheckpointError(
                f"{path} does not fit this run ({reason}): it is damaged or "
                "was made with other settings. Delete the folder or choose another one"
            ) from error

    def _restore(self, state: dict) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        self.step = self.last_saved = state["step"]
        self.seconds = state["seconds"]
        self.average = state["average"]
        self.best = state["best"]

    def _drop_rows_after(self, step: int) -> None:
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        lines = path.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a kill may cut the last one
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(kept))

    def restore_best(self) -> Logs:
        """Give the module its best state back, in every process."""
        if distributed.is_first():
            self.module.load_state_dict(self.best["state"])
        distributed.share_state(self.module.state_dict().values())
        return distributed.from_first(self.best and self.best["figures"])


def _require_finite(name: str, value: float, step: int) -> None:
    """Raise `CheckpointError` where a number is none any more."""
    if not math.isfinite(value):
        raise CheckpointError(
            f"the {name} became {value} at step {step}: lower trainer.learning_rate, or "
            "try trainer.precision=fp32"
        )
