"""Finding CybORG 2.1 and importing it; whatever is wrong with it is one sentence with the remedy."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ray_rl.envs.cyborg.stand_ins import stand_ins
from ray_rl.failures import UserError

SHIPPED = "RAY_RL_CYBORG_SHIPPED"
"""Environment variable of workers on a cluster: the folder on the driver's machine whose CybORG travelled to them, so
that they import it instead of looking for that folder."""

_REMEDY = (
    "clone https://github.com/cage-challenge/cage-challenge-2 and say where it is: --cyborg-path cage-challenge-2 "
    "(the project called cyborg on the package index is another one, a web scraper)"
)
_SCENARIO = Path("Shared/Scenarios/Scenario2.yaml")


@dataclass(frozen=True, slots=True)
class Upstream:
    """CybORG, imported.

    Attributes:
        folder: The package's folder.
        scenario: Its ``Scenario2.yaml``.
        cyborg: The class ``CybORG``.
        agents: Module ``CybORG.Agents``.
        actions: Module ``CybORG.Shared.Actions``.
    """

    folder: Path
    scenario: Path
    cyborg: Any
    agents: Any
    actions: Any


def package_folder(path: str | None) -> Path:
    """Where the package ``CybORG`` lies; nothing is imported.

    Args:
        path: A checkout of cage-challenge-2, the folder ``CybORG`` in it or the package itself; None looks for an
            importable one.

    Raises:
        UserError: When it is not there, or is not CybORG 2.1.
    """
    if path is not None and os.environ.get(SHIPPED) != path:
        return _checked(_below(Path(path).expanduser()), f"--cyborg-path {path}")
    spec = importlib.util.find_spec("CybORG")
    if spec is None or spec.origin is None:
        raise UserError(f"CybORG 2.1 is not installed: {_REMEDY}")
    return _checked(Path(spec.origin).parent, f"the installed CybORG, {Path(spec.origin).parent},")


def _below(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"--cyborg-path {path} is no folder: {_REMEDY}")
    for folder in (path / "CybORG" / "CybORG", path / "CybORG", path):
        if (folder / "__init__.py").is_file() and folder.name == "CybORG":
            return folder.resolve()
    raise UserError(f"--cyborg-path {path} holds no package CybORG: {_REMEDY}")


def _checked(folder: Path, what: str) -> Path:
    if not (folder / _SCENARIO).is_file():
        raise UserError(
            f"{what} is not CybORG 2.1 but that of another challenge: it has no {_SCENARIO.name}. "
            f"For CAGE Challenge 2, {_REMEDY}"
        )
    if not (folder / "Shared" / "Actions" / "ConcreteActions" / "DecoyVsftpd.py").is_file():
        raise UserError(f"{what} is an older CybORG than 2.1, without decoy actions: {_REMEDY}")
    return folder


def load(path: str | None) -> Upstream:
    """Import CybORG; a process imports one.

    Args:
        path: As for `package_folder`.

    Raises:
        UserError: When it is missing or cannot be imported, or another one is loaded already.
    """
    return _load(package_folder(path))


@lru_cache(maxsize=1)
def _load(folder: Path) -> Upstream:
    present = sys.modules.get("CybORG")
    if present is not None and Path(str(present.__file__)).resolve().parent != folder.resolve():
        raise UserError(
            f"this process has imported CybORG from {Path(str(present.__file__)).parent} and cannot import another one "
            f"from {folder}: use one version per run"
        )
    sys.path.insert(0, str(folder.parent))
    try:
        with stand_ins():
            modules = [importlib.import_module(f"CybORG{name}") for name in ("", ".Agents", ".Shared.Actions")]
    except ImportError as error:
        if error.name is None or error.name.startswith("CybORG"):
            raise UserError(f"CybORG in {folder} cannot be imported ({error}): {_REMEDY}") from error
        raise UserError(
            f"CybORG in {folder} needs the Python package {error.name!r}: install it, for example with "
            f"pip install {error.name}"
        ) from error
    finally:
        sys.path.remove(str(folder.parent))
    return Upstream(folder, folder / _SCENARIO, modules[0].CybORG, modules[1], modules[2])


@dataclass(frozen=True, slots=True)
class Shipment:
    """What a job on a cluster takes along so that its workers find CybORG.

    Attributes:
        package: Folder of the package, for ``py_modules`` of Ray's runtime environment.
        env_vars: Environment variables of the workers.
    """

    package: Path
    env_vars: dict[str, str]


def shipment(path: str | None) -> Shipment:
    """Say what has to travel to workers that do not see this machine's folders.

    Args:
        path: As for `package_folder`.

    Raises:
        UserError: When it is missing.
    """
    return Shipment(package_folder(path), {} if path is None else {SHIPPED: path})
