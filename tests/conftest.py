"""What all tests need."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# A shell that starts the tests in the background lets them ignore Ctrl-C, and with them every process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHORT_TRAINING = "--collector sequential --total-episodes 4 --episodes-per-update 2 --minibatches 1 --evaluate-every 0"


def pytest_configure(config: pytest.Config) -> None:
    """Compile the kernels once, before several processes would each do so side by side."""
    if not getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        return
    for policy in ("mlp", "gru"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "ray_rl", "train", *SHORT_TRAINING.split()]
            subprocess.run(
                [*command, "--policy", policy, "--run-dir", f"{folder}/run"], stdout=subprocess.DEVNULL, check=False
            )


@pytest.fixture(scope="session")
def cyborg_path() -> str:
    path = os.environ.get("RAY_RL_CYBORG_PATH")
    if path:
        return path
    spec = importlib.util.find_spec("CybORG")
    if spec is None or spec.origin is None:
        pytest.skip("CybORG 2.1 is not installed, and RAY_RL_CYBORG_PATH names no folder of a checkout")
    return str(Path(spec.origin).parent)
