"""Stages run side by side: how cores are shared, and what is refused."""

from pathlib import Path

import pytest

from vjepa_wm import stages
from vjepa_wm.errors import SettingError


def test_tasks_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more jobs than tasks, each with its cores and its log."""
    monkeypatch.setattr(stages, "available_cores", lambda: 16)
    ran = []

    def stage(*task: str, threads: int, log: Path) -> None:
        ran.append((task, threads, log))

    for jobs, threads in ((None, 8), (1, 16), (40, 8)):
        ran.clear()
        stages.run_stage(stage, [("push", "near"), ("push", "far")], jobs=jobs, logs=tmp_path)
        assert sorted(ran) == [
            (("push", "far"), threads, tmp_path / "push_far.log"),
            (("push", "near"), threads, tmp_path / "push_near.log"),
        ]


def test_no_jobs_at_all_is_refused() -> None:
    stages.check_jobs(None)
    stages.check_jobs(1)
    with pytest.raises(SettingError, match="jobs: wanted at least 1"):
        stages.check_jobs(0)
