"""Other verbs run side by side, each with its share of the cores and a log of its own."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from vjepa_wm.cli import run_verb
from vjepa_wm.data.collection import available_cores
from vjepa_wm.errors import SettingError

Stage = Callable[..., None]


def check_jobs(jobs: int | None) -> None:
    """Refuse a number of jobs that is none.

    Raises:
        SettingError: `jobs` is less than 1.
    """
    if jobs is not None and jobs < 1:
        raise SettingError(f"jobs: wanted at least 1, or null for one per core, got {jobs}")


def run_stage(
    stage: Stage, tasks: Sequence[tuple[str, ...]], *, jobs: int | None, logs: Path
) -> None:
    """Run a stage for several tasks at once.

    Args:
        stage: Called with a task, and with `threads` it may use and the `log` it writes to.
        tasks: Words each; together they name the log.
        jobs: How many at a time; None is one per core.
        logs: Folder of the logs.
    """
    jobs = max(1, min(jobs or available_cores(), len(tasks)))
    threads = max(1, available_cores() // jobs)

    def run(task: tuple[str, ...]) -> None:
        stage(*task, threads=threads, log=logs / f"{'_'.join(task)}.log")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, tasks))


class Runs:
    """Runs of other verbs for one environment, each in a folder of its own below `folder`.

    Args:
        env: Options that say which, as `env_options` gives them.
        folder: Of the runs.
        threads: Cores they may use.
        log: File their output is added to.
    """

    def __init__(self, env: Sequence[str], folder: Path, *, threads: int, log: Path) -> None:
        self.env = env
        self.folder = folder
        self._run = partial(run_verb, threads=threads, log=log)

    def run(self, verb_name: str, name: str, *options: str) -> Path:
        """Run a verb; returns its folder."""
        out = self.folder / name
        self._run(verb_name, *self.env, *options, f"out={out}")
        return out

    def once(self, verb_name: str, name: str, result: str, *options: str) -> Path:
        """Run a verb, unless its result is there already; returns its folder."""
        out = self.folder / name
        return out if (out / result).exists() else self.run(verb_name, name, *options)
