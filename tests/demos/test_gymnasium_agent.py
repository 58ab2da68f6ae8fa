"""The ten lines of the README, from the shipped name to the last step of an episode."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

import planners
from demos import gymnasium_agent
from vjepa_wm import load_world_model

CONFIGS = Path(__file__).parents[2] / "configs"


def test_an_episode_is_played_to_its_end(
    world_model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """With a random world model under the shipped name, and a planner of few candidates."""
    asked: list[str] = []

    def load(name: str) -> object:
        asked.append(name)
        return load_world_model(world_model_folder)

    monkeypatch.setattr(gymnasium_agent, "load_world_model", load)
    chosen: list[dict[str, int]] = []

    def few(**settings: int) -> planners.ICEM:
        chosen.append(settings)
        return planners.ICEM(horizon=2, num_samples=4, num_elites=2, iterations=1)

    monkeypatch.setattr(gymnasium_agent, "ICEM", few)
    gymnasium_agent.main()
    assert asked == ["reacher"]
    default = instantiate(OmegaConf.load(CONFIGS / "planner" / "icem.yaml"))
    assert vars(planners.ICEM(**chosen[0])) == vars(default)
    said = capsys.readouterr().out
    assert said.startswith(("reached the goal", "did not reach the goal"))
    assert "arm_position_m" in said


def test_the_readme_shows_the_same_lines() -> None:
    """What is pasted from the README is what is run here."""
    root = Path(gymnasium_agent.__file__).parents[1]
    (block,) = [
        part.split("```")[0]
        for part in (root / "README.md").read_text().split("```python\n")[1:]
        if "MPCAgent(" in part
    ]
    source = Path(gymnasium_agent.__file__).read_text()
    for line in block.strip().splitlines():
        wanted = line.strip()
        if wanted.startswith(
            ("env =", "world_model =", "cost =", "planner =", "agent", "from", "import")
        ):
            assert wanted in source
