"""One local Ray and one folder of faults for the tests of collecting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_envs import FOLDER_VARIABLE, Faults

from ray_rl.ray_runtime import connection


@pytest.fixture(scope="module")
def fault_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Set for worker processes that start later: where faults are, and where the environment that has them is."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield folder


@pytest.fixture(scope="module")
def local_ray(fault_folder: Path) -> Iterator[None]:
    """One Ray for all tests of a module; its CPUs are in name only, so that several collectors fit side by side."""
    with connection(None, 6):
        yield


@pytest.fixture
def faults(fault_folder: Path) -> Iterator[Faults]:
    """Faults that are mended after the test."""
    planted = Faults(fault_folder)
    yield planted
    planted.clear()
