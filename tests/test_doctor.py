"""The report on the machine, and what it says when environments cannot be drawn."""

import gymnasium
import pytest

from vjepa_wm import doctor


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MATRIX_SIZE", 64)
    monkeypatch.setattr(doctor, "NUM_FRAMES", 3)


def test_report_names_versions_devices_and_rates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in ("python", "torch", "mujoco", "hydra-core", "GFLOP/s", "cuda", "ms per 64 px step"):
        assert word in out


def test_failing_to_draw_is_said_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    quick(monkeypatch)
    monkeypatch.setattr(gymnasium, "make", fails)
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "FAILED, so no environment can be used" in out and "glGetError" in out
    assert "libegl1 libgl1" in out


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-distribution",))
    assert doctor.versions()["no-such-distribution"].startswith("missing")
