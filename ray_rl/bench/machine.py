"""What a figure was measured on: printed and saved with every benchmark."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import ray_rl

_PACKAGES = ("ray", "torch", "numpy", "numba", "gymnasium")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine, the versions and the command behind a figure.

    Attributes:
        processor: Model name of the processor.
        cores: CPUs that this process may use.
        memory_bytes: Memory of the machine.
        system: Operating system and its version.
        versions: Versions of Python, ray_rl and the packages that matter.
        load: Load average over the last minute when the measurement began; above 0, others were at work too.
        command: The command line.
    """

    processor: str
    cores: int
    memory_bytes: int
    system: str
    versions: dict[str, str]
    load: float
    command: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    def describe(self) -> str:
        """Two lines for a person."""
        packages = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_bytes / 2**30:.0f} GiB, load {self.load:.1f}\n"
            f"{packages}\n{self.command}"
        )


def this_machine() -> Machine:
    """Describe the machine and the command that is running."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        versions={"python": platform.python_version(), "ray_rl": ray_rl.__version__, **_package_versions()},
        load=os.getloadavg()[0],
        command=shlex.join(["ray-rl", *sys.argv[1:]]),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _package_versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
