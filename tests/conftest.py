"""Fixtures that several parts of the tests share."""

from pathlib import Path

import pytest

import envs  # noqa: F401 - chooses the OpenGL backend, which must be before any test imports mujoco
from tests import tiny


@pytest.fixture(scope="session")
def world_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random world model that fits every environment of the package."""
    return tiny.save_world_model(tmp_path_factory.mktemp("world_model"))


@pytest.fixture(scope="session")
def watcher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random world model that takes no actions."""
    return tiny.save_world_model(tmp_path_factory.mktemp("watcher"), action_dim=0)


@pytest.fixture(scope="session")
def goal_policy_folder(world_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random policy on the encoder of that world model."""
    return tiny.save_goal_policy(tmp_path_factory.mktemp("policy"), world_model_folder)
