"""A CybORG that is missing or another one is refused in one sentence; finding it leaves the process as it was."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ray_rl.config import EnvConfig, UserError
from ray_rl.envs.cyborg.find import SHIPPED, package_folder, shipment
from ray_rl.envs.cyborg.own_random import OwnRandom
from ray_rl.envs.cyborg.stand_ins import stand_ins
from ray_rl.envs.registry import make_env


def make_package(folder: Path, *files: str) -> Path:
    package = folder / "CybORG"
    for name in ("__init__.py", *files):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    return package


WANTED = ("Shared/Scenarios/Scenario2.yaml", "Shared/Actions/ConcreteActions/DecoyVsftpd.py")


def test_the_package_is_found_from_the_checkout_its_folder_and_itself(tmp_path: Path) -> None:
    package = make_package(tmp_path / "cage-challenge-2" / "CybORG", *WANTED)
    for path in (tmp_path / "cage-challenge-2", package.parent, package):
        assert package_folder(str(path)) == package


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ((), "another challenge: it has no Scenario2.yaml"),
        (("Simulator/Scenarios/DroneSwarmScenarioGenerator.py",), "another challenge"),
        (WANTED[:1], "older CybORG than 2.1"),
    ],
)
def test_another_cyborg_is_refused_with_a_reason_and_the_remedy(
    tmp_path: Path, files: tuple[str, ...], reason: str
) -> None:
    make_package(tmp_path, *files)
    with pytest.raises(UserError, match=f"{reason}.*clone https://github.com/cage-challenge/cage-challenge-2"):
        package_folder(str(tmp_path))


def test_a_missing_folder_and_a_folder_without_cyborg_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder: clone"):
        make_env(EnvConfig(env="cyborg", cyborg_path=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="holds no package CybORG: clone"):
        make_env(EnvConfig(env="cyborg", cyborg_path=str(tmp_path)))


@pytest.mark.skipif(importlib.util.find_spec("CybORG") is not None, reason="CybORG is installed here")
def test_without_a_path_and_an_installed_cyborg_the_remedy_warns_of_the_other_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "CybORG", raising=False)
    with pytest.raises(UserError, match=r"not installed: clone .*cyborg on the package index is another one"):
        package_folder(None)


def test_a_worker_imports_what_travelled_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "driver"
    package = make_package(checkout / "CybORG", *WANTED)
    sent = shipment(str(checkout))
    assert sent.package == package
    arrived = make_package(tmp_path / "worker", *WANTED)
    monkeypatch.delitem(sys.modules, "CybORG", raising=False)
    monkeypatch.syspath_prepend(str(arrived.parent))
    for name, value in sent.env_vars.items():
        monkeypatch.setenv(name, value)
    assert package_folder(str(checkout)) == arrived
    monkeypatch.delenv(SHIPPED)
    assert package_folder(str(checkout)) == package


def test_stand_ins_are_gone_afterwards_and_what_was_there_is_back() -> None:
    installed = ModuleType("gym")
    before = sys.modules.get("gym")
    sys.modules["gym"] = installed
    try:
        with stand_ins():
            assert sys.modules["gym"] is not installed
            assert "prettytable" in sys.modules
        assert sys.modules["gym"] is installed
    finally:
        del sys.modules["gym"]
        if before is not None:
            sys.modules["gym"] = before
    with stand_ins():
        pass
    assert "gym.spaces" not in sys.modules


def draw_and_fail(found: list[float]) -> None:
    found.append(random.random())
    raise ZeroDivisionError


def test_streams_of_random_numbers_do_not_disturb_each_other_or_the_caller() -> None:
    alone = random.Random(7)
    expected = [alone.random() for _ in range(4)]
    mine, other = OwnRandom(), OwnRandom()
    random.seed(123)
    found = []
    with mine.in_use(seed=7):
        found.append(random.random())
    with other.in_use(seed=8):
        random.random()
    random.random()
    with pytest.raises(ZeroDivisionError), mine.in_use():
        draw_and_fail(found)
    for _ in range(2):
        with mine.in_use():
            found.append(random.random())
        with other.in_use():
            random.random()
    assert found == expected
    callers = random.Random(123)
    callers.random()
    assert random.getstate() == callers.getstate()
