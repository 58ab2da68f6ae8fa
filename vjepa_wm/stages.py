"""Other verbs run side by side, each with its share of the cores and a log of its own."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
