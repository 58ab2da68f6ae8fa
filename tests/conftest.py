"""Fixtures that several parts of the tests share."""

from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture(scope="session")
def world_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random world model that fits every environment of the package."""
    return tiny.save_world_model(tmp_path_factory.mktemp("world_model"))
